"""Other tools' quantization of the same fp32 graph: ONNX Runtime's here, the others' in environments of their own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from hone.artifact import Artifact, Manifest, seal
from hone.converters.context import PassContext
from hone.converters.proof.subject import Subject
from hone.errors import one_line
from hone.processes import output_of
from hone.recipe import load_recipe

from ..peers.description import Converter, Peer, converters
from ..peers.environment import environment
from . import plain_quantization

Quantize = Callable[[Path, Path, dict[str, np.ndarray]], int]
"""Takes an ONNX graph, the file to write and calibration rows; returns the lines that a user would have written."""


@dataclass(frozen=True)
class Tool:
    """A way to quantize a graph.

    Attributes:
        name: in reports: who does it, and the mode.
        mode: dynamic or static.
        prepare: makes what is needed, before the clock runs.
        quantize: does it.
    """

    name: str
    mode: str
    prepare: Callable[[], object]
    quantize: Quantize


def tools(root: Path) -> list[Tool]:
    """Return all tools, by name.

    Args:
        root: folder of the peers' environments.
    """
    return [
        Tool("onnxruntime-dynamic", "dynamic", lambda: None, plain_quantization.dynamic),
        Tool("onnxruntime-static", "static", lambda: None, plain_quantization.static),
        *(
            Tool(f"{peer.name}-{mode}", mode, partial(environment, peer, root), partial(_by_script, peer, root, mode))
            for peer in converters()
            for mode in peer.about.modes
        ),
    ]


def _by_script(
    peer: Peer[Converter], root: Path, mode: str, graph: Path, file: Path, calibration: dict[str, np.ndarray]
) -> int:
    # In a folder of its own: converters leave caches where they run.
    with tempfile.TemporaryDirectory(prefix="hone-peer-") as folder:
        rows = Path(folder) / "rows.npz"
        np.savez(rows, allow_pickle=False, **calibration)
        command: list[str | Path] = [environment(peer, root), peer.script, mode, graph.resolve(), rows, file.resolve()]
        printed = output_of(command, peer.name, folder=Path(folder))
    return int(orjson.loads(printed.strip().splitlines()[-1])["lines"])


def quantized(tool: Tool, plain: Artifact, recipe: Path, scratch: Path) -> tuple[Subject | None, dict[str, Any]]:
    """Return what a tool makes of an fp32 artifact, ready to be measured, and the seconds and lines that it took.

    A failure is a result too: then there is nothing to measure, and the second part says why.

    Args:
        plain: an ONNX artifact.
        recipe: whose calibration rows it gets.
        scratch: a folder.
    """
    folder = scratch / f"peer-{tool.name}"
    folder.mkdir()
    loaded = load_recipe(recipe)
    calibration = PassContext(loaded, plain.signature, lambda _: None).calibration.inputs
    try:
        tool.prepare()
        started = time.monotonic()
        lines = tool.quantize(plain.entry, folder / "model.onnx", calibration)
        seconds = round(time.monotonic() - started, 1)
    except Exception as error:  # noqa: BLE001 - whatever stops another tool is its result
        return None, {"error": one_line(error)}
    manifest = Manifest(
        name=loaded.recipe.name, variant=tool.name, runtime="onnx", precision="int8", entry="model.onnx",
        signature=plain.signature,
    )  # fmt: skip
    return Subject(tool.name, seal(folder, manifest)), {"seconds": seconds, "lines": lines}
