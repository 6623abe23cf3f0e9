"""Accuracy-guided mixed precision: what int8 hurts most stays in float, until the loss fits the budget."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from hone.artifact import Artifact
from hone.data import Dataset
from hone.errors import PassError
from hone.signature import Tensors

from ...context import Built, PassContext
from ...graph.execution import run_rows
from ...graph.onnx_graph import load_graph, name_nodes
from ...graph.quantized_graph import heavy_nodes
from ...registry import PassOptions, register, registered
from .alone import Alone
from .own_answers import OwnAnswers

RANKING_ROWS = 32
"""An error is a mean over rows and all values of an output: few rows rank layers as many do, in less time."""

Quantizer = Literal["quantize_dynamic", "quantize_static", "quantize_weights"]


class Options(PassOptions):
    """Another quantizing pass, with the layers left out that cost the most quality."""

    by: Quantizer = Field("quantize_dynamic", description="The pass that quantizes.")
    options: dict[str, Any] = Field(default_factory=dict, description="Its options.")
    max_loss: float | None = Field(
        None,
        gt=0,
        description="Largest loss on the calibration rows, against the float model's answers and in the unit of the "
        "recipe's metric; default: the budget's quality_drop.",
    )
    rows: int = Field(128, ge=8, description="Calibration rows that losses are measured on.")
    max_float_share: float = Field(
        0.5, gt=0, le=1, description="Give up when more than this share of the layers would have to stay in float."
    )

    def decided_here(self) -> dict[str, Any]:
        with contextlib.suppress(ValidationError):  # told when the pass runs
            return registered()[self.by].options.model_validate(self.options).decided_here()
        return {}


@register(
    "quantize_mixed",
    consumes="onnx",
    produces="onnx",
    options=Options,
    needs=("calibration", "quality"),
    tools=("onnxruntime", "onnx"),
    revision=5,
)
def quantize_mixed(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Measure what quantizing each layer alone does to the outputs, then leave out the worst ones: as few as needed.

    A layer's sensitivity is the power of the error that it alone makes, relative to the outputs' power, on the first
    RANKING_ROWS rows: it only says in which order layers are left out. How many are left out is found by bisection,
    each time with all others quantized and on all rows. The loss compares with the float model's answers, so it bounds
    the drop on any labels: a class that didn't change can't have become wrong, and an error grows by at most its
    distance.

    Raises PassError when the inner pass fails, or the loss doesn't fit with `max_float_share` of the layers in float.
    """
    search = _Search(model, options, out, context)
    everything = search.build(())
    loss = search.loss(everything)
    layers = search.layers(everything)
    if not layers:
        raise PassError(f"quantize_mixed: {options.by} quantizes nothing in this graph that could be left out")
    kept: Sequence[str] = ()
    ranked: list[tuple[float, str]] = []
    best = everything
    if loss > search.limit:
        ranked = search.sensitivities(layers)
        kept, best, loss = search.bisect([name for _, name in ranked], loss)
    return search.finish(best, kept, ranked, loss, len(layers))


class _Search:
    """Builds and judges candidates in a scratch folder beside the result."""

    def __init__(self, model: Artifact, options: Options, out: Path, context: PassContext) -> None:
        self._inner = registered()[options.by]
        self._options = options
        self._check_options()
        self._model = model
        self._out = out
        self._context = context
        self._scratch = out / "candidates"
        self._rows = context.calibration.head(options.rows)
        self._expected = _run(model.entry, self._rows)
        self._own = OwnAnswers.of(context.loaded, self._expected, options.max_loss)
        self.limit = self._own.limit
        self._last: Built | None = None

    def _check_options(self) -> None:
        try:
            self._inner.options.model_validate(self._options.options)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise PassError(f"quantize_mixed: options.{field} of {self._options.by}: {first['msg']}") from None

    def build(self, exclude: Sequence[str]) -> Path:
        """Quantize all but these nodes; return the graph's file."""
        folder = self._scratch
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        left = [*self._options.options.get("exclude", ()), *exclude]
        self._last = self._quantize(self._model, left, folder, self._context)
        return folder / self._last.entry

    def _quantize(self, model: Artifact, exclude: Sequence[str], out: Path, context: PassContext) -> Built:
        options = self._inner.options.model_validate({**self._options.options, "exclude": exclude})
        return self._inner.function(model, options, out, context)

    def layers(self, quantized: Path) -> list[str]:
        """Return the float graph's nodes that the inner pass quantized."""
        left = set(heavy_nodes(load_graph(quantized)))
        graph = load_graph(self._model.entry)
        name_nodes(graph)
        return [name for name in heavy_nodes(graph) if name not in left]

    def loss(self, file: Path) -> float:
        return self._own.lost(_run(file, self._rows))

    def sensitivities(self, layers: list[str]) -> list[tuple[float, str]]:
        """Return (relative error power, layer) for each layer quantized alone, the worst first."""
        rows = self._rows.head(RANKING_ROWS)
        with TemporaryDirectory(prefix="hone-mixed-") as scratch:
            try:
                alone = Alone(self._model.entry, layers, rows, Path(scratch))
            except PassError:  # operators that the graph can't be opened behind
                alone = None
            found = []
            for number, layer in enumerate(layers, 1):
                self._context.progress(f"layer {number} of {len(layers)}: {layer}")
                found.append((self._sensitivity(layer, layers, rows, alone), layer))
        return sorted(found, reverse=True)

    def _sensitivity(self, layer: str, layers: list[str], rows: Dataset, alone: Alone | None) -> float:
        if alone:
            # Some layers are quantized only with what is around them, as one whose weights other nodes make.
            with contextlib.suppress(PassError):
                return alone.power(layer, self._quantized)
        got = _run(self.build([name for name in layers if name != layer]), rows)
        return _error_power(got, {name: array[: rows.rows] for name, array in self._expected.items()})

    def _quantized(self, file: Path, rows: Dataset) -> Path:
        """Quantize a graph of one layer."""
        manifest = self._model.manifest.model_copy(update={"entry": file.name})
        out = file.parent / "quantized"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return (
            out / self._quantize(Artifact(file.parent, manifest), (), out, self._context.with_calibration(rows)).entry
        )

    def bisect(self, ranked: list[str], loss: float) -> tuple[list[str], Path, float]:
        """Return the fewest of the worst layers that must stay in float, the graph without them, and its loss."""
        most = min(int(len(ranked) * self._options.max_float_share), len(ranked) - 1)  # one has to be quantized
        low, high = 0, most  # `low` is known to be too few
        found = self.loss(self.build(ranked[:high]))
        if found > self.limit:
            raise PassError(
                f"quantize_mixed: with {most} of {len(ranked)} layers in float the loss ({self._own.loss.words}) is "
                f"still {found:.4g}, over {self.limit:.4g} (all in int8: {loss:.4g}); raise max_float_share or "
                "max_loss, smooth first, or use fp16"
            )
        while high - low > 1:
            middle = (low + high) // 2
            self._context.progress(f"{middle} of {len(ranked)} layers in float")
            candidate = self.loss(self.build(ranked[:middle]))
            if candidate <= self.limit:
                high, found = middle, candidate
            else:
                low = middle
        return ranked[:high], self.build(ranked[:high]), found

    def finish(
        self, best: Path, kept: Sequence[str], ranked: list[tuple[float, str]], loss: float, layers: int
    ) -> Built:
        assert self._last is not None
        for file in best.parent.iterdir():  # a large graph has its weights in a second one
            file.rename(self._out / file.name)
        shutil.rmtree(self._scratch)
        chosen = {name: float(f"{power:.3g}") for power, name in ranked if name in set(kept)}
        details = {
            **self._last.details,
            "by": self._options.by,
            "layers": layers,
            "kept_in_float": chosen,
            "loss": float(f"{loss:.4g}"),
            "limit": self.limit,
            "loss_is": self._own.loss.words,
        }
        last = self._last
        return Built(best.name, last.precision, None, last.runtime_options, last.requires, details)


def _error_power(got: Tensors, expected: Tensors) -> float:
    """Return the error's power over the signal's, the mean over float outputs."""
    ratios = []
    for name, wanted in expected.items():
        if wanted.dtype.kind == "f":
            gap = got[name].astype(np.float64) - wanted
            ratios.append(float((gap**2).sum() / max(float((wanted.astype(np.float64) ** 2).sum()), 1e-30)))
    return float(np.mean(ratios)) if ratios else 0.0


def _run(file: Path, data: Dataset) -> Tensors:
    """Return the outputs of all rows."""
    parts = list(run_rows(file, data, "quantize_mixed"))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
