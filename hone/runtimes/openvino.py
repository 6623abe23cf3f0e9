"""OpenVINO on x86 and ARM CPUs: bfloat16 arithmetic where the processor has it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

from hone.artifact import Artifact
from hone.errors import ArtifactError, one_line
from hone.hardware import cpu_features
from hone.runtimes.base import Availability, Runtime, RuntimeOptions, name_outputs, register

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
BFLOAT16_FEATURES = ("avx512_bf16", "amx_bf16")


class Options(RuntimeOptions):
    """What float arithmetic is done in."""

    inference_precision: Literal["float32", "bfloat16"] = "float32"


@register("openvino")
class OpenVinoRuntime(Runtime):
    """A model compiled by OpenVINO for this processor.

    `runtime_options` of the artifact: `inference_precision`, float32 or bfloat16 (what float arithmetic is done in;
    inputs and outputs stay float32).
    """

    module = "openvino"
    options = Options

    def __init__(self, artifact: Artifact, threads: int | None = None) -> None:
        import openvino

        precision = artifact.manifest.runtime_options.get("inference_precision", "float32")
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            model = openvino.Core().read_model(str(artifact.entry))
            self._compiled = openvino.Core().compile_model(model, "CPU", settings)
        except Exception as error:
            raise ArtifactError(f"{artifact.entry}: OpenVINO can't load it: {one_line(error)}") from error
        self._request = self._compiled.create_infer_request()
        self._signature = artifact.signature
        self._names = [self._name(output, index) for index, output in enumerate(self._compiled.outputs)]
        known = {name for value in self._compiled.inputs for name in value.get_names()}
        for name in artifact.signature.input_names:
            if name not in known:
                raise ArtifactError(f"{artifact.entry}: no input '{name}' in the model, it has {sorted(known)}")

    def _name(self, output: Any, index: int) -> str:
        """A value may have several names, of which the signature knows one."""
        names = output.get_names()
        known = next((name for name in self._signature.output_names if name in names), None)
        return known or next(iter(sorted(names)), f"output_{index}")

    @classmethod
    def availability(cls) -> Availability:
        if find_spec("openvino") is None:
            return Availability(False, reason="openvino is not installed", remedy="pip install 'hone[openvino]'")
        bfloat16 = any(feature in cpu_features() for feature in BFLOAT16_FEATURES)
        detail = "computes on the CPU" + (", bfloat16 too" if bfloat16 else "")
        return Availability(True, version=version("openvino"), detail=detail)

    @classmethod
    def check_host(cls, artifact: Artifact) -> str:
        wanted = artifact.manifest.requires.get("cpu_features", "")
        missing = bool(wanted) and not any(feature in cpu_features() for feature in wanted.split("|"))
        return f"it needs a processor with {wanted.replace('|', ' or ')}" if missing else ""

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = self._request.infer(dict(inputs), share_inputs=True)
        # Copies: the next inference writes into the same memory.
        values = [np.array(results[output]) for output in self._compiled.outputs]
        return name_outputs(dict(zip(self._names, values, strict=True)), self._signature)

    def describe(self) -> str:
        return f"OpenVINO {version('openvino')}, CPU"
