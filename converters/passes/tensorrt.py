"""Build a TensorRT engine from ONNX.

Written against the Python API of TensorRT 11.4 (names checked against its bindings). Since version 11 networks are
strongly typed: precision is what the ONNX graph says (a float16 graph, or explicit QuantizeLinear/DequantizeLinear),
and the builder's FP16 and INT8 flags are gone.
"""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from converters.passes.base import Built, PassContext, PassOptions, register
from converters.pipeline import cache_dir
from hone.artifact import Artifact, atomic_write
from hone.errors import PassError
from hone.hardware import gpu_architecture
from hone.signature import BATCH, Signature

ENGINE, SOURCE = "model.plan", "model.onnx"
Range = tuple[int, int, int]


class Options(PassOptions):
    """An engine for the GPU of the host that builds it, unless `hardware` says otherwise."""

    profiles: dict[str, Range] = Field(
        {BATCH: (1, 8, 64)}, description="Smallest, usual and largest size of each dynamic axis."
    )
    workspace_mb: int = Field(1024, gt=0, description="GPU memory that the builder's tactics may use.")
    optimization_level: int = Field(3, ge=0, le=5, description="Higher searches longer for faster kernels.")
    hardware: Literal["none", "ampere_plus", "same_compute_capability"] = Field(
        "none", description="Which other GPUs may run the engine; wider is slower."
    )
    version_compatible: bool = Field(False, description="Let later versions of TensorRT run the engine.")

    @field_validator("profiles")
    @classmethod
    def _ordered(cls, value: dict[str, Range]) -> dict[str, Range]:
        for axis, (low, usual, high) in value.items():
            if not 1 <= low <= usual <= high:
                raise ValueError(f"axis '{axis}': sizes must rise from at least 1: [{low}, {usual}, {high}]")
        return value


@register("tensorrt", consumes="onnx", produces="tensorrt", options=Options, tools=("tensorrt",), runtime="tensorrt")
def tensorrt(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Parse the ONNX graph, add an optimization profile and build a serialized engine.

    The ONNX file is kept beside the engine: a host whose GPU or TensorRT doesn't match can build its own from it.

    Raises PassError naming the node that TensorRT can't parse, or the dynamic axis without a profile.
    """
    import tensorrt as trt

    shapes = profile_shapes(model.signature, options.profiles)
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model.entry)):
        raise PassError(f"tensorrt: {_parser_errors(parser)}")
    config = _config(trt, builder, options)
    profile = builder.create_optimization_profile()
    for name, (low, usual, high) in shapes.items():
        profile.set_shape(name, low, usual, high)
    config.add_optimization_profile(profile)
    cache_file = cache_dir() / "tensorrt" / f"timing-{gpu_architecture()}-{version('tensorrt')}.cache"
    cache = config.create_timing_cache(cache_file.read_bytes() if cache_file.exists() else b"")
    config.set_timing_cache(cache, ignore_mismatch=False)
    context.progress("building the engine")
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise PassError("tensorrt: the engine can't be built; TensorRT's messages above name the layer")
    atomic_write(cache_file, bytes(config.get_timing_cache().serialize()))
    (out / ENGINE).write_bytes(bytes(engine))
    shutil.copyfile(model.entry, out / SOURCE)
    return Built(
        ENGINE,
        runtime_options={"profiles": {axis: list(sizes) for axis, sizes in options.profiles.items()}},
        requires=requirements(options, gpu_architecture() or "unknown", version("tensorrt")),
        details={"engine_mb": round((out / ENGINE).stat().st_size / 1e6, 3), "layers": network.num_layers},
    )


def profile_shapes(
    signature: Signature, profiles: dict[str, Range]
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
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
    shapes = {}
    for spec in signature.inputs:
        if any(isinstance(axis, str) for axis in spec.shape):
            low, usual, high = (
                tuple(profiles[axis][position] if isinstance(axis, str) else axis for axis in spec.shape)
                for position in range(3)
            )
            shapes[spec.name] = (low, usual, high)
    return shapes


def requirements(options: Options, architecture: str, tensorrt_version: str) -> dict[str, str]:
    """Return what a host must have to run the engine; `hone.runtimes.tensorrt` compares it with the host."""
    gpu = {"none": architecture, "same_compute_capability": architecture, "ampere_plus": "sm_80+"}[options.hardware]
    major = tensorrt_version.split(".", 1)[0]
    return {"gpu": gpu, "tensorrt": f"{major}+" if options.version_compatible else tensorrt_version}


def _config(trt: Any, builder: Any, options: Options) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    config.builder_optimization_level = options.optimization_level
    levels = trt.HardwareCompatibilityLevel
    config.hardware_compatibility_level = {
        "none": levels.NONE,
        "ampere_plus": levels.AMPERE_PLUS,
        "same_compute_capability": levels.SAME_COMPUTE_CAPABILITY,
    }[options.hardware]
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    return config


def _parser_errors(parser: Any) -> str:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return "; ".join(f"node '{error.node_name()}' ({error.node_operator()}): {error.desc()}" for error in errors)
