"""Exported programs that carry a payload: each way by which torch would run it is closed, whatever the entrance."""

from __future__ import annotations

import contextlib
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from hone.cli.main import cli
from hone.converters.run.prepare import prepare
from hone.errors import ArtifactError, HoneError
from hone.formats.pt2 import check_program
from hone.runtimes.torch.runtime import load_program
from tests.sources import ingest, run, write_recipe

Edit = Callable[[bytes], bytes]
ROWS = {"x": np.ones((6, 4), np.float32)}
SIGNATURE = {"inputs": {"x": {"dtype": "float32", "shape": ["batch", 4]}}}


class Payload:
    """Pickled, it writes a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleDict({"block-1": torch.nn.Linear(4, 3)})

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        twice = torch.cat([x, x])
        hidden = self.layers["block-1"](twice.view(twice.shape[0] // 2, 2, -1)[:, 0])
        tripled = torch.einsum("bi,bi->b", hidden, hidden) * torch.tensor([3.0])
        return {"scores": torch.nn.functional.gelu(hidden, approximate="tanh"), "size": tripled}


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "PWNED"


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What torch.export.save writes of a model with dynamic shapes, a constant, a guard and nested outputs."""
    file = tmp_path_factory.mktemp("pt2") / "model.pt2"
    shapes = {"x": {0: torch.export.Dim("batch", min=1, max=50)}}
    torch.export.save(torch.export.export(Small().eval(), (torch.ones(6, 4),), dynamic_shapes=shapes), file)
    return file


def rewritten(ordinary: Path, target: Path, edits: dict[str, Edit], more: dict[str, bytes] | None = None) -> Path:
    """Copy an archive with some members changed and some added; names are below its one folder."""
    with zipfile.ZipFile(ordinary) as source, zipfile.ZipFile(target, "w") as out:
        for item in source.infolist():
            edit = edits.get(item.filename.partition("/")[2], lambda data: data)
            out.writestr(item.filename, edit(source.read(item)))
        for name, data in (more or {}).items():
            out.writestr(f"{source.namelist()[0].partition('/')[0]}/{name}", data)
    return target


def in_graph(change: Callable[[dict[str, Any]], None]) -> dict[str, Edit]:
    def edit(data: bytes) -> bytes:
        program = json.loads(data)
        change(program)
        return json.dumps(program).encode()

    return {"models/model.json": edit}


def pickled(value: object, folder: Path) -> bytes:
    torch.save(value, folder / "value.pt")
    return (folder / "value.pt").read_bytes()


def python(mark: Path) -> str:
    return f"__import__('pathlib').Path('{mark}').touch()"


def sample_inputs(mark: Path) -> dict[str, Edit]:
    return {"data/sample_inputs/model.pt": lambda _: pickled(((Payload(mark),), {}), mark.parent)}


def constant(mark: Path, prefix: str, data: bytes) -> tuple[dict[str, Edit], dict[str, bytes]]:
    payload = {"path_name": f"{prefix}0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    config = json.dumps({"config": {"evil": payload}}).encode()
    return {"data/constants/model_constants_config.json": lambda _: config}, {f"data/constants/{prefix}0": data}


def expression(mark: Path) -> dict[str, Edit]:
    def change(program: dict[str, Any]) -> None:
        values = program["graph_module"]["graph"]["sym_int_values"]
        next(iter(values.values()))["as_expr"]["expr_str"] = python(mark)

    return in_graph(change)


def guard(mark: Path) -> dict[str, Edit]:
    return in_graph(lambda program: program.update(guards_code=[python(mark)]))


def operator(mark: Path, target: str = "torch.os.system") -> dict[str, Edit]:
    """A node that calls any function below the module `torch`."""

    def change(program: dict[str, Any]) -> None:
        node = program["graph_module"]["graph"]["nodes"][0]
        node["target"] = target
        node["inputs"] = [{"name": "", "arg": {"as_string": f"touch {mark}"}, "kind": 1}]

    return in_graph(change)


def from_file(mark: Path) -> dict[str, Edit]:
    """An operator that makes, and maps for writing, a file of the host."""
    return operator(mark, "torch.ops.aten.from_file.default")


def input_name(mark: Path) -> dict[str, Edit]:
    """torch writes names of inputs into the Python that it generates."""

    def edit(data: bytes) -> bytes:
        return data.replace(b'"name": "x"', json.dumps({"name": f"x={python(mark)}"})[1:-1].encode())

    return {"models/model.json": edit}


def tree(mark: Path) -> dict[str, Edit]:
    """The description of nested inputs can name an enumeration, whose module is imported."""
    inner = json.dumps([{"__enum__": True, "fqn": "evilmod:E", "name": "A"}])
    spec = [1, {"type": "builtins.dict", "context": inner, "children_spec": []}]

    def change(program: dict[str, Any]) -> None:
        program["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = json.dumps(spec)

    return in_graph(change)


def payload(kind: str, ordinary: Path, target: Path, mark: Path) -> Path:
    opaque = pickle.dumps(Payload(mark))
    edits: dict[str, Edit] = {}
    more: dict[str, bytes] = {}
    match kind:
        case "sample inputs":
            edits = sample_inputs(mark)
        case "pickled constant":
            edits, more = constant(mark, "tensor_9", pickled(Payload(mark), mark.parent))
        case "opaque constant":
            edits, more = constant(mark, "opaque_obj_", opaque)
        case "class of a library":
            edits, more = constant(mark, "custom_obj_", b"")
        case "legacy weights":
            more = {"data/weights/model.pt": pickled({"w": Payload(mark)}, mark.parent)}
        case "size":
            edits = expression(mark)
        case "guard":
            edits = guard(mark)
        case "operator":
            edits = operator(mark)
        case "operator of files":
            edits = from_file(mark)
        case "input name":
            edits = input_name(mark)
        case "tree":
            edits = tree(mark)
        case "compiled library":
            more = {"data/aotinductor/model/evil.wrapper.so": b"\x7fELF"}
    return rewritten(ordinary, target, edits, more)


RUN_BY_TORCH = ("sample inputs", "pickled constant", "opaque constant", "legacy weights", "size", "guard")
KINDS = (
    *RUN_BY_TORCH, "operator", "input name", "class of a library", "operator of files", "tree", "compiled library",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_payload_in_a_program_does_not_run(tmp_path: Path, ordinary: Path, mark: Path, kind: str) -> None:
    (tmp_path / "evilmod.py").write_text(f"open({str(mark)!r}, 'w')")
    file = payload(kind, ordinary, tmp_path / "model.pt2", mark)
    loaded = write_recipe(tmp_path, {"file": "model.pt2"}, ROWS, signature=SIGNATURE)
    with pytest.raises(HoneError, match="could run code; set 'trust_pickle: true'") as error:
        prepare(loaded.path, tmp_path / "sources", tmp_path / "evaluation.npz")
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(ArtifactError):
        load_program(file)
    for command in (
        ["init", str(file), "--out", str(tmp_path / "made.yaml")],
        ["optimize", str(loaded.path), "--dry-run"],
    ):
        CliRunner().invoke(cli, command)
    assert not mark.exists()


@pytest.mark.parametrize("kind", RUN_BY_TORCH)
def test_payload_is_one_that_torch_runs(tmp_path: Path, ordinary: Path, mark: Path, kind: str) -> None:
    """The tests above would show nothing if the payloads were duds; and `trust_pickle` is what it says."""
    file = payload(kind, ordinary, tmp_path / "model.pt2", mark)
    with contextlib.suppress(Exception):  # after the payload, much is broken
        load_program(file, trust_pickle=True).module()(torch.ones(6, 4))
    assert mark.exists()


def test_ordinary_program_loads_without_trust(tmp_path: Path, ordinary: Path) -> None:
    check_program(ordinary)
    (tmp_path / "model.pt2").write_bytes(ordinary.read_bytes())
    loaded = write_recipe(tmp_path, {"file": "model.pt2"}, ROWS, signature=SIGNATURE)
    work = ingest(loaded, tmp_path / "source")
    assert run(work.artifact, ROWS)["scores"].shape == (6, 3)
    assert work.artifact.manifest.runtime_options == {}


class Several(torch.nn.Module):
    """Convolutions, attention, a loop over sizes, a condition and buffers that change: what real models have."""

    def __init__(self) -> None:
        super().__init__()
        self.front = torch.nn.Conv2d(3, 8, 3, padding="same")
        self.norm = torch.nn.BatchNorm2d(8)
        self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
        self.memory = torch.nn.LSTM(8, 8, batch_first=True)
        self.register_buffer("scale", torch.full((1,), 2.0))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self.norm(self.front(image)).flatten(2).transpose(1, 2)
        rows = self.attention(rows, rows, rows)[0]
        rows = self.memory(rows)[0]
        total = torch.cond(rows.sum() > 0, lambda r: r * 2, lambda r: r + 1, (rows,))
        pooled = torch.nn.functional.interpolate(image, scale_factor=0.5, mode="bilinear")
        return total[:, -1] * self.scale, pooled.mean((1, 2, 3)) * image.shape[2]


def test_program_with_what_real_models_have_loads_without_trust(tmp_path: Path) -> None:
    file = tmp_path / "model.pt2"
    axes = {"image": {0: torch.export.Dim("batch", max=64)}}
    torch.export.save(torch.export.export(Several().eval(), (torch.ones(2, 3, 8, 6),), dynamic_shapes=axes), file)
    assert load_program(file).module()(torch.ones(3, 3, 8, 6))[0].shape == (3, 8)


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x04.", b"x" * 5000])
def test_what_is_no_program_is_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.pt2"
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"not a readable \.pt2 exported program") as error:
        load_program(file)
    assert "\n" not in str(error.value)


def test_archive_that_reads_in_two_ways_is_refused(tmp_path: Path, ordinary: Path) -> None:
    """torch falls back on an older form, read by another library, when the first can't make sense of the file."""
    file = tmp_path / "model.pt2"
    with zipfile.ZipFile(ordinary) as source, zipfile.ZipFile(file, "w") as out:
        for item in source.infolist():
            out.writestr(item, source.read(item))
        out.writestr("version", "8.8")
        out.writestr("serialized_state_dict.pt", b"")
    with pytest.raises(ArtifactError, match="not a readable"):
        load_program(file)
