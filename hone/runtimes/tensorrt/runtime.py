"""TensorRT engines on an NVIDIA GPU.

Written against the Python API of TensorRT 11.4 and of cuda-bindings 13; names were checked against both packages.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from hone.artifact import Artifact
from hone.errors import ArtifactError, HoneError
from hone.hardware import gpu_architecture, gpu_name
from hone.runtimes.base import Availability, Runtime, RuntimeOptions, register
from hone.runtimes.tensorrt.engine import SOURCE, engine_file, host_mismatch
from hone.runtimes.trace import RAW, WARM_UPS, Call, Trace, chrome_events, timed, traced
from hone.signature import BATCH

ELSEWHERE = "on a host with an NVIDIA GPU run: pip install 'hone[torch,tensorrt]' && hone optimize RECIPE"


class Options(RuntimeOptions):
    """What the builder was told, so that another host builds alike: the fields of `EngineOptions`."""

    profiles: dict[str, tuple[int, int, int]] = Field(default_factory=dict)
    workspace_mb: int = Field(1024, gt=0)
    optimization_level: int = Field(3, ge=0, le=5)
    hardware: Literal["none", "ampere_plus", "same_compute_capability"] = "none"
    version_compatible: bool = False
    sparse_weights: bool = False


@register("tensorrt")
class TensorrtRuntime(Runtime):
    """An engine with one execution context, one stream, and device buffers that grow with the largest batch."""

    module = "tensorrt"
    options = Options

    def __init__(self, artifact: Artifact, threads: int | None = None) -> None:
        import tensorrt as trt
        from cuda.bindings import runtime as cuda

        file = engine_file(artifact, gpu_architecture() or "none", _installed())
        self._cuda = cuda
        self._signature = artifact.signature
        self._logger = trt.Logger(trt.Logger.WARNING)
        self._runtime = trt.Runtime(self._logger)
        engine = self._runtime.deserialize_cuda_engine(file.read_bytes())
        if engine is None:
            raise ArtifactError(f"{file}: TensorRT can't load it; build it again on this host: hone optimize RECIPE")
        self._engine = engine
        self._context = engine.create_execution_context()
        self._types = {name: np.dtype(trt.nptype(engine.get_tensor_dtype(name))) for name in self._names()}
        self._max_rows = max_rows(artifact)
        self._stream = _checked(cuda, cuda.cudaStreamCreate())
        self._buffers: dict[str, tuple[int, int]] = {}

    def _names(self) -> list[str]:
        return [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]

    @classmethod
    def availability(cls) -> Availability:
        if platform.system() not in ("Linux", "Windows"):
            return Availability(False, reason=f"TensorRT doesn't run on {platform.system()}", remedy=ELSEWHERE)
        if gpu_name() is None:
            return Availability(False, reason="no NVIDIA GPU on this host", remedy=ELSEWHERE)
        for module in ("tensorrt", "cuda.bindings"):
            if not _found(module):
                reason = f"{module} is not installed"
                return Availability(False, reason=reason, remedy="pip install 'hone[tensorrt]'")
        return Availability(True, version=version("tensorrt"), detail=f"{gpu_name()}, {gpu_architecture()}")

    @classmethod
    def code_in(cls, artifact: Artifact) -> str:
        """NVIDIA's documentation: engines hold compiled kernels; load only those from a source you trust."""
        return "is a TensorRT engine, a native program"

    @classmethod
    def check_host(cls, artifact: Artifact) -> str:
        """An engine for another GPU or version is no hindrance as long as the graph to build from is beside it."""
        if (artifact.path / SOURCE).exists():
            return ""
        return host_mismatch(artifact.manifest.requires, gpu_architecture() or "none", _installed())

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows = len(next(iter(inputs.values())))
        if not self._signature.batchable or rows <= self._max_rows:
            return self._run(inputs)
        parts = [
            self._run({name: array[start : start + self._max_rows] for name, array in inputs.items()})
            for start in range(0, rows, self._max_rows)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        cuda, kinds = self._cuda, self._cuda.cudaMemcpyKind
        held = []  # host arrays must live until the stream has copied them
        for name, array in inputs.items():
            host = np.ascontiguousarray(array, dtype=self._types[name])
            held.append(host)
            if not self._context.set_input_shape(name, host.shape):
                raise HoneError(f"input '{name}' of shape {list(host.shape)} is outside the engine's profile")
            address = self._buffer(name, host.nbytes)
            copy = (address, host.ctypes.data, host.nbytes, kinds.cudaMemcpyHostToDevice, self._stream)
            _checked(cuda, cuda.cudaMemcpyAsync(*copy))
            self._context.set_tensor_address(name, address)
        outputs = {}
        for name in self._signature.output_names:
            host = np.empty(tuple(self._context.get_tensor_shape(name)), self._types[name])
            self._context.set_tensor_address(name, self._buffer(name, host.nbytes))
            outputs[name] = host
        if not self._context.execute_async_v3(self._stream):
            raise HoneError("TensorRT could not run the batch; its log says why")
        for name, host in outputs.items():
            copy = (host.ctypes.data, self._buffers[name][0], host.nbytes, kinds.cudaMemcpyDeviceToHost, self._stream)
            _checked(cuda, cuda.cudaMemcpyAsync(*copy))
        _checked(cuda, cuda.cudaStreamSynchronize(self._stream))
        return {spec.name: outputs[spec.name].astype(spec.numpy_dtype, copy=False) for spec in self._signature.outputs}

    def _buffer(self, name: str, size: int) -> int:
        """Return a device address with room for `size` bytes; it is kept for the next call."""
        address, room = self._buffers.get(name, (0, 0))
        if room >= size and address:
            return address
        if address:
            _checked(self._cuda, self._cuda.cudaFree(address))
        address = int(_checked(self._cuda, self._cuda.cudaMalloc(max(size, 1))))
        self._buffers[name] = (address, size)
        return address

    def profile(self, inputs: Mapping[str, np.ndarray], runs: int, folder: Path) -> Trace:
        """In an execution context of its own, whose layers report their time; the types of layers are the engine's."""
        import tensorrt as trt

        calls: list[Call] = []
        types = layer_types(self._engine.create_engine_inspector(), trt.LayerInformationFormat.JSON)

        class Profiler(trt.IProfiler):
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                calls.append(Call(layer_name, types.get(layer_name, layer_name), "GPU", "", ms / 1e3))

        served, self._context = self._context, self._engine.create_execution_context()
        try:
            self._context.profiler = Profiler()
            timed(lambda: self.run(inputs), WARM_UPS)
            calls.clear()
            seconds = timed(lambda: self.run(inputs), runs)
        finally:
            self._context = served
        (folder / RAW).write_text(json.dumps(chrome_events(calls)))
        return traced(calls, seconds)

    def describe(self) -> str:
        return f"TensorRT {version('tensorrt')}, {gpu_name()}"

    def close(self) -> None:
        for address, _ in self._buffers.values():
            _checked(self._cuda, self._cuda.cudaFree(address))
        self._buffers.clear()
        _checked(self._cuda, self._cuda.cudaStreamDestroy(self._stream))


def layer_types(inspector: Any, form: Any) -> dict[str, str]:
    """Return the types of an engine's layers by name; none of an engine that was built without them.

    Args:
        inspector: of the engine.
        form: the inspector's for JSON.
    """
    layers = json.loads(inspector.get_engine_information(form)).get("Layers", [])
    return {layer["Name"]: layer.get("LayerType", "") or layer["Name"] for layer in layers if isinstance(layer, dict)}


def max_rows(artifact: Artifact) -> int:
    """Return the most rows that the engine's profile takes at once."""
    profile = artifact.manifest.runtime_options.get("profiles", {}).get(BATCH)
    return int(profile[2]) if profile else 1


def _checked(cuda: Any, answer: tuple[Any, ...]) -> Any:
    """Return the value of a CUDA call, or raise HoneError with CUDA's own words."""
    status, *values = answer
    if status != cuda.cudaError_t.cudaSuccess:
        _, text = cuda.cudaGetErrorString(status)
        raise HoneError(f"CUDA: {text.decode() if isinstance(text, bytes) else text}")
    return values[0] if values else None


def _found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _installed() -> str:
    try:
        return version("tensorrt")
    except PackageNotFoundError:
        return ""
