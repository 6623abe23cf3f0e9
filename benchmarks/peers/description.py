"""What a peer's script says of itself, read without running it: what it imports is in its own environment only.

The form is inline script metadata (PEP 723), which `uv run` and other tools read, too:

    # /// script
    # dependencies = ["fastapi==0.165.0", "uvicorn==0.54.0", "onnxruntime==1.31.1", "numpy"]
    #
    # [tool.hone.server]
    # ready_path = "/ready"
    # settings = "uvicorn with uvloop, no access log; fastapi.tiangolo.com, deployment"
    # payloads.json = {format = "tensors-json", path = "/json"}
    # ///

Its table is named after what it is: `tool.hone.server` is a `Server`, `tool.hone.converter` a `Converter`,
`tool.hone.detector` a `Detector`.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hone.errors import HoneError, did_you_mean, first_problem

SCRIPTS = Path(__file__).parent / "scripts"
ENDING = "_peer"
"""Of a script's name: a file called `fastapi.py` would import itself where it means the package."""

BLOCK = re.compile(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
"""As PEP 723 defines it."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Payload(_Table):
    """How a server takes rows.

    Formats: `bytes` are all inputs, one behind the other; `counted-bytes` the same with a header `x-rows`;
    `tensors-json` is `{"inputs": {name: rows}}`; `array-json` is `{"inputs": rows}` of a single input; `v2-json` and
    `v2-binary` are the Open Inference Protocol's.
    """

    format: Literal["bytes", "counted-bytes", "tensors-json", "array-json", "v2-json", "v2-binary"]
    path: str = Field(pattern="^/", description="Of the server, that it is sent to.")


class Server(_Table):
    """A server to compare with. The variables PEER_MODEL (an ONNX file), PEER_PORT, PEER_THREADS (of ONNX Runtime) and
    PEER_FOLDER (where it may write) tell its script what to do."""

    settings: str = Field(pattern=r"^[^\n]+$", description="What was chosen, and where its documentation says so.")
    ready_path: str = Field(pattern="^/", description="Answers 200 when it serves.")
    payloads: dict[Literal["json", "binary"], Payload] = Field(
        min_length=1, description="What it is sent in a scenario of each kind; one that is missing is left out."
    )
    pausable: bool = Field(
        True, description="It survives being stopped between its turns; one that doesn't runs alone, after the others."
    )


class Converter(_Table):
    """A converter to compare with. Its script is called with a mode, the model, the calibration rows (`.npz`) and the
    file to write; it prints `{"lines": N}`, how long a configuration its user would have written."""

    settings: str = Field(pattern=r"^[^\n]+$", description="What was chosen, and where its documentation says so.")
    modes: tuple[Literal["dynamic", "static", "own"], ...] = Field(
        min_length=1, description="Kinds of quantization; own: the tool decides, and takes part in every example."
    )
    takes: Literal["onnx", "program"] = Field("onnx", description="The fp32 graph, or torch's exported program.")
    gives: Literal["onnx", "openvino", "program"] = Field(
        "onnx", description="The form of what it writes; a program is compiled by torch when it is loaded."
    )


class Detector(_Table):
    """A detector of drift to compare with. Its script is called with files of streams (`.npz`: the reference's rows,
    which columns are categories, and rows with the places where looks end), and writes `NAME.out.npz` beside each:
    the seconds of a look, and by the rows of a window and the part of the stream [looks, columns] scores, 1 at its
    threshold."""

    settings: str = Field(pattern=r"^[^\n]+$", description="What was chosen, and where its documentation says so.")
    shares: tuple[float, ...] = Field((0.0,), description="Of columns that are drift together; 0: any column is.")


KINDS: dict[str, type[Server] | type[Converter] | type[Detector]] = {
    "server": Server,
    "converter": Converter,
    "detector": Detector,
}
Kind = TypeVar("Kind", Server, Converter, Detector)


@dataclass(frozen=True)
class Peer(Generic[Kind]):
    """One peer.

    Attributes:
        name: in reports, and of its environment.
        script: that runs it.
        requirements: exact versions, as its environment is made of them.
        about: what its description says beside that.
    """

    name: str
    script: Path
    requirements: tuple[str, ...]
    about: Kind


@cache
def servers() -> tuple[Peer[Server], ...]:
    """Return the servers to compare with, by name."""
    return _all(Server)


@cache
def converters() -> tuple[Peer[Converter], ...]:
    """Return the converters to compare with, by name."""
    return _all(Converter)


@cache
def detectors() -> tuple[Peer[Detector], ...]:
    """Return the detectors of drift to compare with, by name."""
    return _all(Detector)


def _all(kind: type[Kind]) -> tuple[Peer[Kind], ...]:
    found = [read(script) for script in sorted(SCRIPTS.glob(f"*{ENDING}.py"))]
    return tuple(peer for peer in found if isinstance(peer.about, kind))


def read(script: Path) -> Peer[Any]:
    """Return the peer that a script describes.

    Raises:
        HoneError: it has no description, or one that is wrong; the message names the field.
    """
    content = _block(script)
    tables = content.get("tool", {}).get("hone", {})
    if len(tables) != 1 or not tables.keys() <= KINDS.keys():
        known = ", ".join(f"tool.hone.{name}" for name in KINDS)
        raise HoneError(f"{script}: its description needs one of the tables {known}")
    ((kind, table),) = tables.items()
    try:
        about = KINDS[kind].model_validate(table)
    except ValidationError as error:
        raise HoneError(f"{script}: tool.hone.{kind}.{_problem(error, KINDS[kind])}") from None
    requirements = content.get("dependencies")
    if not isinstance(requirements, list) or not all(isinstance(entry, str) for entry in requirements):
        raise HoneError(f"{script}: its description needs dependencies, a list of packages with their versions")
    return Peer(script.stem.removesuffix(ENDING).replace("_", "-"), script, tuple(requirements), about)


def _block(script: Path) -> dict[str, Any]:
    blocks = list(BLOCK.finditer(script.read_text()))
    if len(blocks) != 1:
        raise HoneError(f"{script}: needs one description, '# /// script' to '# ///'; it has {len(blocks)}")
    lines = blocks[0]["content"].splitlines(keepends=True)
    try:
        return tomllib.loads("".join(line.removeprefix("#").removeprefix(" ") for line in lines))
    except tomllib.TOMLDecodeError as error:
        raise HoneError(f"{script}: its description is not TOML: {error}") from None


def _problem(error: ValidationError, kind: type[BaseModel]) -> str:
    """Return the field and what is wrong with it; a name that isn't known first, for then others may be missing."""
    unknown = [item["loc"] for item in error.errors() if item["type"] == "extra_forbidden"]
    if not unknown or len(unknown[0]) > 1:
        return first_problem(error)
    return f"{unknown[0][0]}: unknown field{did_you_mean(str(unknown[0][0]), kind.model_fields)}"
