"""TensorRT engines: built from ONNX, kept by the GPU and version they are for, and found again at load.

Written against the Python API of TensorRT 11.4 (names checked against its bindings). Since version 11 networks are
strongly typed: precision is what the ONNX graph says (a float16 or bfloat16 graph, or explicit
QuantizeLinear/DequantizeLinear), and the builder's FP16 and INT8 flags are gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hone.artifact import Artifact
from hone.cache import cache_dir, check_own
from hone.errors import PassError
from hone.files import atomic_write
from hone.hardware import gpu_architecture
from hone.signature import BATCH, Signature

SOURCE = "model.onnx"
"""The graph that an engine was made from, beside it."""

Range = tuple[int, int, int]
Shapes = dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineOptions:
    """What the builder is told; kept in the artifact, so that another host builds alike.

    Attributes:
        profiles: smallest, usual and largest size of each dynamic axis.
        workspace_mb: GPU memory that the builder's tactics may use, MiB.
        optimization_level: 0 to 5; higher searches longer.
        hardware: none, ampere_plus or same_compute_capability: which other GPUs may run the engine.
        version_compatible: later versions of TensorRT may run it.
        sparse_weights: use kernels for 2:4 sparse weights where the weights are.
    """

    profiles: Mapping[str, Range] = field(default_factory=lambda: {BATCH: (1, 8, 64)})
    workspace_mb: int = 1024
    optimization_level: int = 3
    hardware: str = "none"
    version_compatible: bool = False
    sparse_weights: bool = False

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> EngineOptions:
        """Return the options that an artifact holds; what it doesn't name has its default."""
        known = {name: content[name] for name in cls.__dataclass_fields__ if name in content}
        if "profiles" in known:
            known["profiles"] = {axis: tuple(sizes) for axis, sizes in known["profiles"].items()}
        return cls(**known)


def build(graph: Path, signature: Signature, options: EngineOptions) -> tuple[bytes, int]:
    """Return a serialized engine for this host's GPU, and the number of layers of its network.

    The tactics that the builder timed are kept for the next build on this kind of GPU.

    Raises:
        PassError: naming the node that TensorRT can't parse, or the dynamic axis without a profile.
    """
    import tensorrt as trt

    shapes = profile_shapes(signature, options.profiles)
    log = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        raise PassError(f"tensorrt: {_parser_errors(parser)}")
    config = _config(trt, builder, options)
    profile = builder.create_optimization_profile()
    for name, (low, usual, high) in shapes.items():
        profile.set_shape(name, low, usual, high)
    config.add_optimization_profile(profile)
    cache_file = cache_dir() / "tensorrt" / f"timing-{gpu_architecture()}-{version('tensorrt')}.cache"
    cache = config.create_timing_cache(check_own(cache_file).read_bytes() if cache_file.exists() else b"")
    config.set_timing_cache(cache, ignore_mismatch=False)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise PassError("tensorrt: the engine can't be built; TensorRT's messages above name the layer")
    atomic_write(cache_file, bytes(config.get_timing_cache().serialize()))
    return bytes(engine), int(network.num_layers)


def profile_shapes(signature: Signature, profiles: Mapping[str, Range]) -> Shapes:
    """Return the smallest, usual and largest shape of each input that has dynamic axes.

    Raises:
        PassError: a dynamic axis has no profile, or a profile names no axis.
    """
    axes = signature.dynamic_axes
    for axis in axes:
        if axis not in profiles:
            raise PassError(
                f"tensorrt: dynamic axis '{axis}' has no profile; set option profiles: {{{axis}: [min, usual, max]}}"
            )
    for axis in profiles:
        if axis not in axes and axis != BATCH:
            raise PassError(f"tensorrt: profiles names '{axis}', the signature's dynamic axes are {axes}")
    shapes: Shapes = {}
    for spec in signature.inputs:
        if any(isinstance(axis, str) for axis in spec.shape):
            low, usual, high = (
                tuple(profiles[axis][position] if isinstance(axis, str) else axis for axis in spec.shape)
                for position in range(3)
            )
            shapes[spec.name] = (low, usual, high)
    return shapes


def requirements(options: EngineOptions, architecture: str, installed: str) -> dict[str, str]:
    """Return what a host must have to run the engine as it is; `host_mismatch` compares it with a host."""
    gpu = {"none": architecture, "same_compute_capability": architecture, "ampere_plus": "sm_80+"}[options.hardware]
    major = installed.split(".", 1)[0]
    return {"gpu": gpu, "tensorrt": f"{major}+" if options.version_compatible else installed}


def host_mismatch(requires: Mapping[str, str], architecture: str, installed: str) -> str:
    """Return why a host can't run an engine, or an empty string.

    Args:
        requires: `gpu` is an architecture such as `sm_90`, or `sm_80+` for that and later ones; `tensorrt` is a
            version, or `11+` for that major version and later ones.
        architecture: the host's GPU.
        installed: the host's TensorRT version.
    """
    gpu, wanted = requires.get("gpu", ""), requires.get("tensorrt", "")
    if gpu.endswith("+"):
        if not architecture.startswith("sm_") or int(architecture[3:]) < int(gpu[3:-1]):
            return f"the engine needs a GPU of {gpu}, this host has {architecture}"
    elif gpu and gpu != architecture:
        return f"the engine was built for {gpu}, this host has {architecture}"
    if wanted.endswith("+"):
        if int(installed.split(".", 1)[0] or 0) < int(wanted[:-1]):
            return f"the engine needs TensorRT {wanted}, this host has {installed or 'none'}"
    elif wanted and wanted != installed:
        return f"the engine was built with TensorRT {wanted}, this host has {installed or 'none'}"
    return ""


def engine_file(
    artifact: Artifact,
    architecture: str,
    installed: str,
    make: Callable[[Path, Signature, EngineOptions], tuple[bytes, int]] = build,
) -> Path:
    """Return the engine to load on a host: the artifact's own, or one that is built here from the graph beside it.

    A built one is kept in Hone's cache, by the graph's hash, the GPU and the version; a corrupt or half-written one
    can't be found, since it is moved into place when it is whole.

    Raises:
        PassError: it can't be built.
        ArtifactError: another user could have put one there.
    """
    problem = host_mismatch(artifact.manifest.requires, architecture, installed)
    if not problem:
        return artifact.entry
    file = cache_dir() / "tensorrt" / f"{artifact.digest[:24]}-{architecture}-{installed}.plan"
    if not file.exists():
        logger.warning("%s: %s; building one for this host, which takes minutes", artifact.entry, problem)
        options = EngineOptions.of(artifact.manifest.runtime_options)
        atomic_write(file, make(artifact.path / SOURCE, artifact.signature, options)[0])
    return check_own(file)


def _config(trt: Any, builder: Any, options: EngineOptions) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    config.builder_optimization_level = options.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the engine keeps its layers' types, for profiles
    levels = trt.HardwareCompatibilityLevel
    config.hardware_compatibility_level = {
        "none": levels.NONE,
        "ampere_plus": levels.AMPERE_PLUS,
        "same_compute_capability": levels.SAME_COMPUTE_CAPABILITY,
    }[options.hardware]
    for wanted, flag in (
        (options.version_compatible, trt.BuilderFlag.VERSION_COMPATIBLE),
        (options.sparse_weights, trt.BuilderFlag.SPARSE_WEIGHTS),
    ):
        if wanted:
            config.set_flag(flag)
    return config


def _parser_errors(parser: Any) -> str:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return "; ".join(f"node '{error.node_name()}' ({error.node_operator()}): {error.desc()}" for error in errors)
