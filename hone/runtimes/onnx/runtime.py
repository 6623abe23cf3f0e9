"""ONNX Runtime: the CPU, CUDA and TensorRT execution providers."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from hone.artifact import Artifact
from hone.cache import cache_dir, check_own
from hone.errors import ArtifactError, InputError, one_line
from hone.hardware import gpu_name
from hone.names import shown
from hone.runtimes.base import Availability, Runtime, RuntimeOptions, register
from hone.runtimes.onnx.profiling import finish, profile_to, read_trace
from hone.runtimes.onnx.providers import CPU, CUDA, TENSORRT, option_problem
from hone.runtimes.onnx.saturation import saturates
from hone.runtimes.parts import rows_at_once, run_in_parts
from hone.runtimes.trace import WARM_UPS, Trace, timed

NVIDIA = (CUDA, TENSORRT)
KERNEL = "; keep that operator in float (block_ops, exclude), or choose another provider or precision"
BAD_INDEX = re.compile(r"(indices element out of data bounds|invalid index found|Out of range value in index tensor).*")
"""What Gather, GatherND and GatherElements say when a token id or an index is one that the model doesn't have."""
logger = logging.getLogger(__name__)
INSTALL = "pip install onnxruntime (CPU), or 'hone[cuda]' (NVIDIA GPU)"


class Options(RuntimeOptions):
    """Where the graph computes, how its threads wait, and which of ONNX Runtime's optimizations are left out."""

    providers: tuple[str, ...] = ()
    provider_options: dict[str, dict[str, str | int | float | bool]] = Field(default_factory=dict)
    disabled_optimizers: tuple[str, ...] = ()
    optimized: bool = True
    spin: bool = False

    @model_validator(mode="after")
    def _only_computation(self) -> Options:
        for name, values in {**{name: {} for name in self.providers}, **self.provider_options}.items():
            problem = option_problem(name, values)
            if problem:
                raise ValueError(problem)
        return self


@register("onnx")
class OnnxRuntime(Runtime):
    """An ONNX Runtime session.

    `runtime_options` of the artifact: `providers`, a list of execution provider names in order of preference
    (default: CPU), `provider_options`, a mapping from provider name to its options, `disabled_optimizers`, names of
    graph optimizations that are left out, `optimized`, false to leave all of them out, and `spin`, whether threads
    wait for work on a busy core (default: they sleep; ONNX Runtime's own default keeps a core a thread busy for tens
    of milliseconds after each run). A provider that this host can't use is passed over in favor of the next, and a
    warning says so; `describe` names the one that computes. A graph for a fixed number of rows runs in parts.
    """

    module = "onnxruntime"
    concurrent = True
    options = Options

    @classmethod
    def code_in(cls, artifact: Artifact) -> str:
        """A graph may hold compiled engines in place of operators (EPContext nodes), which TensorRT's provider runs.

        Raises:
            ArtifactError: the entry is no `.onnx` file; ONNX Runtime has another format, by another ending.
        """
        if not artifact.entry.name.endswith(".onnx"):
            raise ArtifactError(f"{artifact.path}: entry: {shown(artifact.manifest.entry)} must end in .onnx")
        if TENSORRT not in artifact.manifest.runtime_options.get("providers", []):
            return ""
        # ONNX Runtime reads a graph whatever its file is called.
        for name in (artifact.manifest.entry, *artifact.manifest.files):
            file = artifact.path / name
            if file.is_file() and holds_text(file, b"EPContext"):
                return "holds a compiled TensorRT engine, which is a native program"
        return ""

    def __init__(self, artifact: Artifact, threads: int | None = None, traced: Path | None = None) -> None:
        """As every runtime; `traced` is a folder that the session writes its trace and its optimized graph to."""
        import onnxruntime as ort

        self._twin = lambda folder: OnnxRuntime(artifact, threads, folder)
        # What fails in a run is raised with the same words; a caller's mistake must not fill the log.
        self._quiet = ort.RunOptions()
        self._quiet.log_severity_level = 4
        options = _session_options(artifact, threads)
        wanted = artifact.manifest.runtime_options.get("providers") or [CPU]
        providers = self._providers(artifact.manifest.runtime_options, usable_providers())
        if traced is not None:
            profile_to(options, traced, compiled=TENSORRT in dict(providers))
        try:
            self._session = ort.InferenceSession(
                str(artifact.entry),
                options,
                providers=providers,
                disabled_optimizers=artifact.manifest.runtime_options.get("disabled_optimizers"),
            )
        except Exception as error:  # ONNX Runtime raises a class of its own for each kind of failure
            remedy = KERNEL if "NOT_IMPLEMENTED" in str(error) else ""
            raise ArtifactError(f"{artifact.entry}: ONNX Runtime can't load it: {one_line(error)}{remedy}") from error
        # A source model's outputs are not known before it has run once: then it gives all that its graph has.
        self._outputs = artifact.signature.output_names or [node.name for node in self._session.get_outputs()]
        self._check_names(artifact)
        batched = {spec.name for spec in artifact.signature.inputs if spec.batchable}
        self._rows = rows_at_once({node.name: node.shape for node in self._session.get_inputs()}, batched)
        first = self._session.get_providers()[0]
        if first != wanted[0]:
            names = [name.removesuffix("ExecutionProvider") for name in (wanted[0], first)]
            logger.warning("%s: this host has no %s provider, %s computes", artifact.entry, *names)
        self._device = "cuda" if first in NVIDIA else ""

    @staticmethod
    def _providers(options: Mapping[str, Any], usable: list[str]) -> list[tuple[str, dict[str, Any]]]:
        """Return the providers to use, with their options; CPU is last, for nodes that no other takes."""
        wanted = [*options.get("providers", []), CPU]
        settings = options.get("provider_options", {})
        chosen = dict.fromkeys(name for name in wanted if name in usable)
        return [(name, _with_cache(name, settings.get(name, {}))) for name in chosen]

    @classmethod
    def check_host(cls, artifact: Artifact) -> str:
        wanted = artifact.manifest.runtime_options.get("providers") or [CPU]
        usable = usable_providers()
        first = next((name for name in wanted if name in usable), None)
        if first is not None:
            return saturates(artifact) if first == CPU else ""
        names = " or ".join(name.removesuffix("ExecutionProvider") for name in wanted)
        return f"needs ONNX Runtime's {names} provider, this host has none"

    def _check_names(self, artifact: Artifact) -> None:
        """The graph must have the signature's inputs and outputs, or every later run would fail."""
        graph_inputs = {node.name for node in self._session.get_inputs()}
        graph_outputs = {node.name for node in self._session.get_outputs()}
        for kind, wanted, found in (
            ("input", artifact.signature.input_names, graph_inputs),
            ("output", self._outputs, graph_outputs),
        ):
            for name in wanted:
                if name not in found:
                    raise ArtifactError(f"{artifact.entry}: no {kind} '{name}' in the graph, it has {sorted(found)}")

    @classmethod
    def availability(cls) -> Availability:
        if find_spec("onnxruntime") is None:
            return Availability(False, reason="onnxruntime is not installed", remedy=INSTALL)
        installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
        if len(installed) == 2:
            return Availability(
                False,
                reason="onnxruntime and onnxruntime-gpu are both installed and overwrite each other",
                remedy="uninstall both, then install one",
            )
        import onnxruntime as ort

        detail = ", ".join(name.removesuffix("ExecutionProvider") for name in ort.get_available_providers())
        return Availability(True, version=ort.__version__, detail=f"providers: {detail}")

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self._rows is not None:
            return run_in_parts(self._run, inputs, self._rows)
        return self._run(inputs)

    def _run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            if self._device and all(array.dtype.kind != "O" for array in inputs.values()):
                return self._run_bound(inputs, self._device)
            values = self._session.run(self._outputs, inputs, self._quiet)
        except Exception as error:  # ONNX Runtime raises a class of its own for each kind of failure
            reason = BAD_INDEX.search(str(error))
            if reason is None:
                raise
            raise InputError(f"an input has a value out of range: {reason.group()}") from None
        return {self._outputs[0]: values[0]} if len(values) == 1 else dict(zip(self._outputs, values, strict=True))

    def _run_bound(self, inputs: Mapping[str, np.ndarray], device: str) -> dict[str, np.ndarray]:
        """Run with I/O binding: each input goes to the device once, outputs stay there until they are all done.

        A plain run copies every output as soon as its node ends, and waits for the device each time (ONNX Runtime's
        documentation, "I/O Binding").
        """
        import onnxruntime as ort

        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), device, 0))
        for name in self._outputs:
            binding.bind_output(name, device)
        self._session.run_with_iobinding(binding, self._quiet)
        return dict(zip(self._outputs, binding.copy_outputs_to_cpu(), strict=True))

    def profile(self, inputs: Mapping[str, np.ndarray], runs: int, folder: Path) -> Trace:
        """In a session of its own, with the same options: one that is open can't begin to trace."""
        twin = self._twin(folder)
        timed(lambda: twin.run(inputs), WARM_UPS)
        seconds = timed(lambda: twin.run(inputs), runs)
        return read_trace(finish(twin._session.end_profiling(), folder), seconds)

    def describe(self) -> str:
        import onnxruntime as ort

        provider = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        return f"ONNX Runtime {ort.__version__}, {provider}"


def _session_options(artifact: Artifact, threads: int | None) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    level = ort.GraphOptimizationLevel
    plain = not artifact.manifest.runtime_options.get("optimized", True)
    options.graph_optimization_level = level.ORT_DISABLE_ALL if plain else level.ORT_ENABLE_ALL
    if threads is not None:
        options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    spin = artifact.manifest.runtime_options.get("spin", False)
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    return options


def usable_providers() -> list[str]:
    """Return the execution providers of this installation, less those of NVIDIA on a host without its GPU."""
    import onnxruntime as ort

    found: list[str] = ort.get_available_providers()
    return [name for name in found if name not in NVIDIA or gpu_name() is not None]


def _with_cache(provider: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Building TensorRT engines takes minutes, so they are kept in Hone's cache unless the options say no."""
    if provider != TENSORRT or not options.get("trt_engine_cache_enable", True):
        return dict(options)
    folder = cache_dir() / "tensorrt" / "providers"
    folder.mkdir(parents=True, exist_ok=True)
    return {**options, "trt_engine_cache_enable": True, "trt_engine_cache_path": str(check_own(folder))}


def holds_text(file: Path, text: bytes, chunk: int = 1 << 24) -> bool:
    """True when a file holds these bytes; read in pieces, because weights may be larger than memory."""
    with file.open("rb") as stream:
        tail = b""
        while piece := stream.read(chunk):
            if text in tail + piece:
                return True
            tail = piece[-len(text) :]
    return False


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
