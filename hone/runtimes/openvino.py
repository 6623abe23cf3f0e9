"""OpenVINO on x86 and ARM CPUs: bfloat16 arithmetic where the processor has it."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast

import numpy as np

from hone.artifact import Artifact
from hone.errors import ArtifactError, one_line
from hone.hardware import cpu_features
from hone.runtimes.base import Availability, Runtime, RuntimeOptions, missing, name_outputs, register
from hone.runtimes.onnx.saturation import saturates
from hone.runtimes.parts import rows_at_once, run_in_parts
from hone.runtimes.trace import RAW, WARM_UPS, Call, Trace, chrome_events, timed, traced

# Importing OpenVINO is reported to Intel by Google Analytics, from servers, too, as converting and quantizing with it
# are. All of them do without this module.
sys.modules.setdefault("openvino_telemetry", cast(ModuleType, None))

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
BFLOAT16_FEATURES = ("avx512_bf16", "amx_bf16")


@cache
def core() -> Any:
    """Return the one Core of this process, which keeps OpenVINO's CPU plugin for good.

    A plugin gives its thread a stack for signals when it is made, and puts back the one before when it goes (2026.4).
    Of two that don't go in turns the one before may be gone by then: the next signal would end the process.
    """
    import openvino

    return openvino.Core()


class Options(RuntimeOptions):
    """What float arithmetic is done in."""

    inference_precision: Literal["float32", "bfloat16"] = "float32"


@register("openvino")
class OpenVinoRuntime(Runtime):
    """A model compiled by OpenVINO for this processor.

    `runtime_options` of the artifact: `inference_precision`, float32 or bfloat16 (what float arithmetic is done in;
    inputs and outputs stay float32). A model for a fixed number of rows runs in parts.
    """

    module = "openvino"
    options = Options

    def __init__(self, artifact: Artifact, threads: int | None = None) -> None:
        self._artifact, self._threads = artifact, threads
        self._compiled = self._compile(artifact, threads)
        self._request = self._compiled.create_infer_request()
        self._signature = artifact.signature
        self._names = [self._name(output, index) for index, output in enumerate(self._compiled.outputs)]
        known = {name for value in self._compiled.inputs for name in value.get_names()}
        for name in artifact.signature.input_names:
            if name not in known:
                raise ArtifactError(f"{artifact.entry}: no input '{name}' in the model, it has {sorted(known)}")
        self._rows = model_rows(self._compiled, {spec.name for spec in artifact.signature.inputs if spec.batchable})

    @staticmethod
    def _compile(artifact: Artifact, threads: int | None, **more: Any) -> Any:
        """Return the model compiled for a number of threads; `more` are settings of OpenVINO."""
        precision = artifact.manifest.runtime_options.get("inference_precision", "float32")
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
            **more,
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            return core().compile_model(core().read_model(str(artifact.entry)), "CPU", settings)
        except Exception as error:
            raise ArtifactError(f"{artifact.entry}: OpenVINO can't load it: {one_line(error)}") from error

    def _name(self, output: Any, index: int) -> str:
        """A value may have several names, of which the signature knows one."""
        names = output.get_names()
        known = next((name for name in self._signature.output_names if name in names), None)
        return known or next(iter(sorted(names)), f"output_{index}")

    @classmethod
    def availability(cls) -> Availability:
        if absent := missing("openvino", openvino="openvino"):
            return absent
        bfloat16 = any(feature in cpu_features() for feature in BFLOAT16_FEATURES)
        detail = "computes on the CPU" + (", bfloat16 too" if bfloat16 else "")
        return Availability(True, version=version("openvino"), detail=detail)

    @classmethod
    def check_host(cls, artifact: Artifact) -> str:
        wanted = artifact.manifest.requires.get("cpu_features", "")
        if wanted and not any(feature in cpu_features() for feature in wanted.split("|")):
            return f"it needs a processor with {wanted.replace('|', ' or ')}"
        return saturates(artifact)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._run(self._request, inputs)

    def _run(self, request: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run rows through a request of this model's, in parts where it is made for a number of rows."""

        def run(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            results = request.infer(dict(rows), share_inputs=True)
            # Copies: the next inference writes into the same memory.
            values = [np.array(results[index]) for index in range(len(self._names))]
            return name_outputs(dict(zip(self._names, values, strict=True)), self._signature)

        return run(inputs) if self._rows is None else run_in_parts(run, inputs, self._rows)

    def profile(self, inputs: Mapping[str, np.ndarray], runs: int, folder: Path) -> Trace:
        """In a copy of the model that is compiled to count times (`PERF_COUNT`)."""
        request = self._compile(self._artifact, self._threads, PERF_COUNT=True).create_infer_request()
        rows = len(next(iter(inputs.values())))
        parts = 1 if self._rows is None else -(-rows // self._rows)

        def run() -> None:
            self._run(request, inputs)

        timed(run, WARM_UPS)
        before = _counted(request, WARM_UPS * parts)
        seconds = timed(run, runs)
        after = _counted(request, (WARM_UPS + runs) * parts)
        calls = [
            Call(*step, "CPU", kernel, max(0.0, spent - before.get(step, ("", 0.0))[1]) / runs)
            for step, (kernel, spent) in after.items()
        ]
        (folder / RAW).write_text(json.dumps(chrome_events(calls)))
        return traced(calls * runs, seconds)

    def describe(self) -> str:
        return f"OpenVINO {version('openvino')}, CPU"


def model_rows(model: Any, batched: Collection[str]) -> int | None:
    """Return the rows that a model, compiled or not, takes at a time; None: any number.

    Args:
        batched: names of inputs whose axis 0 is the batch.
    """
    shapes = {
        name: [axis.get_length() if axis.is_static else None for axis in value.get_partial_shape()]
        for value in model.inputs
        for name in value.get_names()
    }
    return rows_at_once(shapes, batched)


def _counted(request: Any, runs: int) -> dict[tuple[str, str], tuple[str, float]]:
    """Return by (node, its type) the kernel and the seconds of all runs so far: OpenVINO tells the mean of them."""
    return {
        (step.node_name, step.node_type): (step.exec_type, step.real_time.total_seconds() * runs)
        for step in request.profiling_info
        if step.status == step.Status.EXECUTED
    }
