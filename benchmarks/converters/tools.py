"""Other tools' forms of the same model: ONNX Runtime's and torch's here, the others' in environments of their own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from hone.artifact import Artifact, Manifest, seal
from hone.converters.context import PassContext
from hone.converters.proof.subject import Subject
from hone.errors import one_line
from hone.hardware import cpu_features
from hone.processes import output_of
from hone.recipe import load_recipe
from hone.runtimes.openvino import BFLOAT16_FEATURES

from ..peers.description import Converter, Peer, converters
from ..peers.environment import environment
from . import plain_quantization, plain_sklearn, torch_models

BY_ITSELF = "own"
"""The mode of a tool that decides by itself what it makes of a model; every example has it."""

FILES = {"onnx": "model.onnx", "openvino": "model.xml", "program": "model.pt2"}
"""What tools take and give: a graph, OpenVINO's format, or an exported program of torch."""


@dataclass(frozen=True)
class Given:
    """What every tool starts from.

    Attributes:
        plain: the fp32 graph of an example.
        source: its source model.
        recipe: of the example.
        rows: its calibration rows by input.
    """

    plain: Artifact
    source: Artifact
    recipe: Path
    rows: dict[str, np.ndarray]


@dataclass(frozen=True)
class Made:
    """What a tool wrote into its folder.

    Attributes:
        entry: the file.
        lines: that a user would have written.
        runtime: that runs it.
        precision: of its products.
        options: of the runtime.
    """

    entry: str
    lines: int
    runtime: str = "onnx"
    precision: str = "int8"
    options: dict[str, Any] = field(default_factory=dict)


Make = Callable[[Given, Path], Made]
"""Takes what there is and an empty folder."""


@dataclass(frozen=True)
class Tool:
    """A way to make a model faster.

    Attributes:
        name: in reports: who does it, and the mode where there are several.
        peer: who does it.
        mode: dynamic, static or `BY_ITSELF`; or the only framework whose models it takes.
        prepare: makes what is needed, before the clock runs.
        make: does it.
    """

    name: str
    peer: str
    mode: str
    prepare: Callable[[], object]
    make: Make


def tools(root: Path) -> list[Tool]:
    """Return all tools, by name.

    Args:
        root: folder of the peers' environments.
    """
    here = "onnxruntime"
    return [
        Tool("onnxruntime-dynamic", here, "dynamic", _nothing, partial(_plain, plain_quantization.dynamic)),
        Tool("onnxruntime-static", here, "static", _nothing, partial(_plain, plain_quantization.static)),
        Tool("skl2onnx", "skl2onnx", "sklearn", _nothing, _by_skl2onnx),
        Tool("torch-compile", "torch-compile", BY_ITSELF, _nothing, _compiled),
        Tool("aot-inductor", "aot-inductor", BY_ITSELF, _nothing, _packaged),
        *(
            Tool(
                peer.name if mode == BY_ITSELF else f"{peer.name}-{mode}",
                peer.name,
                mode,
                partial(environment, peer, root),
                partial(_by_script, peer, root, mode),
            )
            for peer in converters()
            for mode in peer.about.modes
        ),
    ]


def _nothing() -> None:
    return None


def _plain(quantize: Callable[[Path, Path, dict[str, np.ndarray]], int], given: Given, folder: Path) -> Made:
    return Made(FILES["onnx"], quantize(given.plain.entry, folder / FILES["onnx"], given.rows))


def _by_skl2onnx(given: Given, folder: Path) -> Made:
    lines = plain_sklearn.convert(given.source, given.plain.signature, folder / FILES["onnx"])
    return Made(FILES["onnx"], lines, precision="fp32")


def host_arithmetic() -> str:
    """Return what floats are best computed in here, as OpenVINO decides it where nobody says."""
    return "bfloat16" if any(feature in cpu_features() for feature in BFLOAT16_FEATURES) else "float32"


def _compiled(given: Given, folder: Path) -> Made:
    """Let torch compile the source when it is loaded, and compute in bfloat16 where the processor can."""
    options = {**torch_models.copied(given.source, folder), "compiled": host_arithmetic()}
    precision = "bf16" if host_arithmetic() == "bfloat16" else "fp32"
    return Made(given.source.manifest.entry, 4, "torch", precision, options)


def _packaged(given: Given, folder: Path) -> Made:
    """Let torch compile the source ahead of time, and compute in bfloat16 where the processor can."""
    bfloat16 = host_arithmetic() == "bfloat16"
    lines = torch_models.package(given.source, given.recipe, folder / FILES["program"], bfloat16=bfloat16)
    return Made(FILES["program"], lines, "torch", "bf16" if bfloat16 else "fp32", {"packaged": True})


def _by_script(peer: Peer[Converter], root: Path, mode: str, given: Given, folder: Path) -> Made:
    takes, gives = peer.about.takes, peer.about.gives
    # In a folder of its own: converters leave caches where they run.
    with tempfile.TemporaryDirectory(prefix="hone-peer-") as scratch:
        rows, model = Path(scratch) / "rows.npz", given.plain.entry.resolve()
        np.savez(rows, allow_pickle=False, **given.rows)
        if takes == "program":
            model = Path(scratch) / "source.pt2"
            torch_models.export(given.source, given.recipe, model)
        command: list[str | Path] = [environment(peer, root), peer.script, mode, model, rows, folder / FILES[gives]]
        printed = output_of(command, peer.name, folder=Path(scratch))
    lines = int(orjson.loads(printed.strip().splitlines()[-1])["lines"])
    if gives == "openvino":
        return Made(FILES[gives], lines, gives, options={"inference_precision": host_arithmetic()})
    if gives == "program":
        return Made(FILES[gives], lines, "torch", options={"compiled": host_arithmetic(), "trust_pickle": True})
    return Made(FILES[gives], lines)


def made_by(tool: Tool, given: Given, scratch: Path) -> tuple[Subject | None, dict[str, Any]]:
    """Return what a tool makes of a model, ready to be measured, and the seconds and lines that it took.

    A failure is a result too: then there is nothing to measure, and the second part says why.

    Args:
        scratch: a folder.
    """
    folder = (scratch / f"peer-{tool.name}").resolve()
    folder.mkdir()
    try:
        tool.prepare()
        started = time.monotonic()
        made = tool.make(given, folder)
        seconds = round(time.monotonic() - started, 1)
    except Exception as error:  # noqa: BLE001 - whatever stops another tool is its result
        return None, {"error": one_line(error)}
    manifest = Manifest(
        name=given.plain.manifest.name, variant=tool.name, runtime=made.runtime, precision=made.precision,
        entry=made.entry, signature=given.plain.signature, runtime_options=made.options,
    )  # fmt: skip
    facts = {
        "tool": tool.peer,
        "precision": made.precision,
        "seconds": seconds,
        "minutes": round(seconds / 60, 2),
        "lines": made.lines,
    }
    return Subject(tool.name, seal(folder, manifest)), facts


def given_by(recipe: Path, plain: Artifact, source: Artifact) -> Given:
    """Return what tools start from; the calibration rows are those that the recipe's own passes get, and a few others
    where it has none, as for trees.

    Raises:
        RecipeError: the rows can't be read.
    """
    loaded = load_recipe(recipe)
    context = PassContext(loaded, plain.signature, lambda _: None)
    rows = context.calibration if loaded.recipe.calibration else context.sample
    return Given(plain, source, recipe, rows.inputs)
