"""MLX: Apple silicon's GPU, and the CPU on macOS and Linux."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hone.artifact import Artifact
from hone.errors import ArtifactError, one_line
from hone.hardware import is_apple_silicon
from hone.names import shown
from hone.runtimes.base import Availability, Runtime, missing, register
from hone.runtimes.mlx.operators import OPERATORS
from hone.runtimes.trace import RAW, WARM_UPS, Call, Trace, chrome_events, timed, traced

GRAPH_VERSION = 1
ALONE = "each operator ran alone and was waited for; as it is served MLX joins them, so shares are rough"
DTYPES = ("float32", "float16", "bfloat16")


@register("mlx")
class MlxRuntime(Runtime):
    """A graph of ONNX operators executed by MLX, compiled once for each input shape.

    The artifact holds `graph.json` and `weights.safetensors`, as `converters.passes.export.mlx` describes them.
    """

    module = "mlx.core"
    threads_adjustable = False

    def __init__(self, artifact: Artifact, threads: int | None = None) -> None:
        import mlx.core as mx

        try:
            graph = json.loads(artifact.entry.read_text())
            self._values = _load_values(artifact, graph)
            self._nodes: list[dict[str, Any]] = graph["nodes"]
            if graph["dtype"] not in DTYPES:
                raise ValueError(f"{shown(str(graph['dtype']))} is no dtype to compute in")
            self._dtype = getattr(mx, graph["dtype"])
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ArtifactError(f"{artifact.entry}: MLX can't load it: {one_line(error)}") from error
        if graph["version"] != GRAPH_VERSION:
            raise ArtifactError(f"{artifact.entry}: graph version {graph['version']}, this Hone reads {GRAPH_VERSION}")
        unknown = sorted({node["op"] for node in self._nodes} - OPERATORS.keys())
        if unknown:
            raise ArtifactError(f"{artifact.entry}: operators that this Hone lacks: {', '.join(unknown)}")
        self._signature = artifact.signature
        self._inputs: list[str] = artifact.signature.input_names
        self._outputs: list[str] = artifact.signature.output_names
        self._compiled = mx.compile(self._trace)

    @classmethod
    def availability(cls) -> Availability:
        if absent := missing("mlx", mlx="mlx"):
            return absent
        device = "Apple GPU" if is_apple_silicon() else "CPU"
        return Availability(True, version=version("mlx"), detail=f"computes on the {device}")

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import mlx.core as mx

        results = self._compiled(*[self._fed(mx.array(inputs[name])) for name in self._inputs])
        mx.eval(results)
        arrays = {}
        for spec, result in zip(self._signature.outputs, results, strict=True):
            if result.dtype in (mx.bfloat16, mx.float16) and spec.dtype == "float32":
                result = result.astype(mx.float32)
            arrays[spec.name] = np.array(result).astype(spec.numpy_dtype, copy=False)
        return arrays

    def _fed(self, value: Any) -> Any:
        """Return an input as the graph computes with it."""
        import mlx.core as mx

        return value.astype(self._dtype) if value.dtype == mx.float32 else value

    def _trace(self, *inputs: Any) -> list[Any]:
        """Run the graph once; under `mx.compile` this happens for each new combination of input shapes."""
        return self._walk(lambda node, arguments: OPERATORS[node["op"]](node["attributes"], *arguments), *inputs)

    def _walk(self, step: Callable[[dict[str, Any], list[Any]], Any], *inputs: Any) -> list[Any]:
        """Compute the graph with a function that computes a node of its arguments."""
        values = {**self._values, **dict(zip(self._inputs, inputs, strict=True)), "": None}
        for node in self._nodes:
            arguments = [values[name] for name in node["inputs"]]
            try:
                result = step(node, arguments)
            except Exception as error:
                shapes = [list(getattr(value, "shape", [])) for value in arguments]
                raise ArtifactError(
                    f"node '{node['name']}' ({node['op']}) fails on shapes {shapes}: {one_line(error)}"
                ) from error
            values.update(zip(node["outputs"], _several(result), strict=False))
        return [_on_device(values[name]) for name in self._outputs]

    def profile(self, inputs: Mapping[str, np.ndarray], runs: int, folder: Path) -> Trace:
        """Operator by operator, each waited for: MLX has no profiler but Xcode's."""
        import mlx.core as mx

        timed(lambda: self.run(inputs), WARM_UPS)
        calls: list[Call] = []

        def step(node: dict[str, Any], arguments: list[Any]) -> Any:
            started = time.perf_counter()
            result = OPERATORS[node["op"]](node["attributes"], *arguments)
            mx.eval([value for value in _several(result) if isinstance(value, mx.array)])
            where = "GPU" if is_apple_silicon() else "CPU"
            calls.append(Call(node["name"], node["op"], where, str(self._dtype), time.perf_counter() - started))
            return result

        def run() -> None:
            self._walk(step, *(self._fed(mx.array(inputs[name])) for name in self._inputs))

        seconds = timed(run, runs)
        (folder / RAW).write_text(json.dumps(chrome_events(calls)))
        return traced(calls, seconds, ALONE)

    def leave_thread(self) -> None:
        """End the thread's streams: MLX aborts the process when a thread that has some ends with them."""
        import mlx.core as mx

        mx.clear_streams()

    def describe(self) -> str:
        return f"MLX {version('mlx')}, {'Apple GPU' if is_apple_silicon() else 'CPU'}"


def _several(result: Any) -> list[Any]:
    return result if isinstance(result, list) else [result]


def _on_device(value: Any) -> Any:
    from hone.runtimes.mlx.ops import device

    return device(value)


def _load_values(artifact: Artifact, graph: dict[str, Any]) -> dict[str, Any]:
    """Return constants by name: weights as MLX arrays, small integers (shapes, axes) as numpy."""
    import mlx.core as mx

    arrays: Any = mx.load(str(artifact.path / "weights.safetensors"))
    values: dict[str, Any] = {}
    for name, stored in graph["compressed"].items():
        weight = mx.dequantize(
            arrays.pop(name), arrays.pop(f"{name}.scales"), arrays.pop(f"{name}.biases"),
            group_size=stored["group_size"], bits=stored["bits"],
        )  # fmt: skip
        values[name] = weight.reshape(stored["shape"])
    values.update(arrays)
    mx.eval(list(values.values()))
    for name, constant in graph["constants"].items():
        values[name] = np.array(constant["values"], dtype=constant["dtype"]).reshape(constant["shape"])
    return values
