"""Files of a look at activations: the record, and a page of it."""

from __future__ import annotations

from pathlib import Path

from hone.files import atomic_write
from hone.pages.render import render
from hone.profiles.activations.record import Activations, Layer

RECORD, PAGE = "activations.json", "activations.html"


def write(found: Activations, out: Path) -> None:
    """Write both into a folder."""
    rows = [(layer, _bar(layer)) for layer in found.layers]
    page = render(Path(__file__).with_name(PAGE), found=found, rows=rows)
    atomic_write(out / RECORD, found.model_dump_json(indent=2) + "\n")
    atomic_write(out / PAGE, page)


def _bar(layer: Layer) -> tuple[float, float]:
    """Return where 99.8 % of the values lie in their range: start and width in percent."""
    width = layer.most - layer.least
    if not width:
        return 0.0, 100.0
    low, high = layer.percentiles["0.1"], layer.percentiles["99.9"]
    return (low - layer.least) / width * 100, (high - low) / width * 100
