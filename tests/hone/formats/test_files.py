"""Model and data files that carry a payload: reading one runs nothing, whatever the format and the entrance.

Exported programs of torch and Keras models have files of tests of their own.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from hone import runtimes
from hone.artifact import Artifact, Manifest, seal
from hone.cli.main import cli
from hone.converters.run.prepare import prepare
from hone.data import load_dataset
from hone.errors import ArtifactError, HoneError, RecipeError
from hone.recipe import DataSpec, load_recipe
from hone.signature import Signature, TensorSpec
from tests.models.dense import dense_artifact
from tests.sources import write_recipe

ROWS = {"features": np.ones((6, 4), np.float32)}
SIGNATURE = {"inputs": {"features": {"dtype": "float32", "shape": ["batch", 4]}}}


class Payload:
    """Pickled, it writes a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "PWNED"


def refused_everywhere(folder: Path, name: str, **source: Any) -> str:
    """Read the file through a recipe as `hone optimize` does, with --dry-run and with `hone init`; return the error."""
    write_recipe_of(folder, name, **source)
    made = str(folder / "made.yaml")
    for command in (
        ["init", str(folder / name), "--out", made],
        ["optimize", str(folder / "recipe.yaml"), "--dry-run"],
    ):
        result = CliRunner().invoke(cli, command)
        assert "Traceback" not in result.output
    with pytest.raises(HoneError) as error:
        prepare(folder / "recipe.yaml", folder / "sources", folder / "evaluation.npz")
    assert "\n" not in str(error.value)
    return str(error.value)


def write_recipe_of(folder: Path, name: str, **source: Any) -> None:
    with contextlib.suppress(RecipeError):  # refused when the recipe was read; the other entrances read it, too
        write_recipe(folder, {"file": name, **source}, ROWS, signature=SIGNATURE)


FRAMEWORKS = ("torch", "sklearn", "xgboost", "lightgbm", "keras", "onnx")
ENDINGS = ("pkl", "pickle", "joblib", "pt", "pth", "bin", "PKL", "ckpt", "model", "skops", "ubj", "json", "txt",
           "keras", "onnx", "pt2", "safetensors", "npy")  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS)
def test_pickle_under_any_ending_is_not_unpickled(tmp_path: Path, mark: Path, ending: str) -> None:
    (tmp_path / f"model.{ending}").write_bytes(pickle.dumps(Payload(mark)))
    refused_everywhere(tmp_path, f"model.{ending}")
    assert not mark.exists()


@pytest.mark.parametrize("framework", [name for name in FRAMEWORKS if name != "keras"])  # TensorFlow takes seconds
@pytest.mark.parametrize("ending", ["ckpt", "PKL", "dat", ""])
def test_pickle_of_a_stated_framework_needs_trust(tmp_path: Path, mark: Path, framework: str, ending: str) -> None:
    (tmp_path / f"model.{ending}").write_bytes(pickle.dumps(Payload(mark)))
    refused_everywhere(tmp_path, f"model.{ending}", framework=framework)
    assert not mark.exists()


def test_torch_checkpoint_without_a_loader_says_that_it_is_a_pickle(tmp_path: Path, mark: Path) -> None:
    import torch

    torch.save(Payload(mark), tmp_path / "model.ckpt")
    message = refused_everywhere(tmp_path, "model.ckpt", framework="torch")
    assert "model.ckpt would be read as a pickle" in message
    assert "trust_pickle: true" in message
    assert not mark.exists()
    refused_everywhere(tmp_path, "model.ckpt", framework="torch", trust_pickle=True)
    assert mark.exists()  # no dud


def test_weights_beside_a_class_are_read_as_weights_only(tmp_path: Path, mark: Path) -> None:
    import torch

    (tmp_path / "net.py").write_text("import torch\n\ndef build():\n    return torch.nn.Linear(4, 2)\n")
    for ending in ("ckpt", "weights", "safetensors"):
        torch.save({"weight": Payload(mark)}, tmp_path / f"model.{ending}")
        message = refused_everywhere(tmp_path, f"model.{ending}", framework="torch", loader="net:build")
        assert "holds no readable weights" in message
    assert not mark.exists()


def test_script_of_torch_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """A TorchScript archive is a program, by whatever name, and no setting makes it a source."""
    import torch

    torch.jit.save(torch.jit.trace(torch.nn.Linear(4, 2), torch.ones(2, 4)), tmp_path / "model.pt")
    for more in ({}, {"trust_pickle": True}, {"loader": "net:build"}):
        message = refused_everywhere(tmp_path, "model.pt", **more)
        assert "model.pt: is TorchScript" in message
        assert "torch.export.save(torch.export.export(module, example), 'model.pt2')" in message
    (tmp_path / "model.pt").rename(tmp_path / "model.ts")
    assert "is TorchScript" in refused_everywhere(tmp_path, "model.ts", framework="torch")


def skops_file(folder: Path, edit: Any) -> None:
    import skops.io
    from sklearn.linear_model import LinearRegression

    skops.io.dump(LinearRegression().fit(np.ones((3, 4)), np.ones(3)), folder / "plain.skops")
    with zipfile.ZipFile(folder / "plain.skops") as source, zipfile.ZipFile(folder / "model.skops", "w") as out:
        for item in source.infolist():
            data = source.read(item)
            if item.filename == "schema.json":
                data = json.dumps(edit(json.loads(data))).encode()
            out.writestr(item, data)


@pytest.mark.parametrize(
    "loader", ["FunctionNode", "OperatorFuncNode", "MethodNode", "TypeNode", "ReduceNode", "ObjectNode"]
)
def test_skops_that_names_a_function_of_the_host_is_refused(tmp_path: Path, mark: Path, loader: str) -> None:
    pytest.importorskip("skops")

    def part(kind: str, name: str, **content: Any) -> dict[str, Any]:
        return {"__class__": name, "__module__": "builtins", "__loader__": kind, "__id__": id(content), **content}

    command = part("JsonNode", "str", content=json.dumps(f"touch {mark}"))
    node = {
        **part(loader, "system", attrs=part("TupleNode", "tuple", content=[]), content=command),
        "__module__": "posix",
        "__reduce__": {"args": part("TupleNode", "tuple", content=[command])},
    }

    def edit(schema: dict[str, Any]) -> dict[str, Any]:
        schema["content"]["content"]["coef_"] = node
        return schema

    skops_file(tmp_path, edit)
    refused_everywhere(tmp_path, "model.skops")
    assert not mark.exists()


def graph(folder: Path, location: str) -> None:
    """A graph with weights in a file beside it, or elsewhere."""
    import onnx

    weight = onnx.TensorProto(name="W", data_type=onnx.TensorProto.FLOAT, dims=[4, 3])
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    nodes = [onnx.helper.make_node("MatMul", ["features", "W"], ["scores"])]
    value = onnx.helper.make_tensor_value_info
    inputs, outputs = [value("features", 1, ["batch", 4])], [value("scores", 1, ["batch", 3])]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", inputs, outputs, [weight]))
    model.ir_version = 9
    (folder / "model.onnx").write_bytes(model.SerializeToString())


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "a/../../secret.bin", "link.bin"])
def test_external_data_of_a_graph_stays_in_its_folder(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(48))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    graph(folder, location)
    message = refused_everywhere(folder, "model.onnx")
    assert "outside the model's folder" in message or "is missing" in message
    # And as an artifact: the runtime may open only what the manifest lists.
    manifest = Manifest(
        name="m", runtime="onnx", precision="fp32", entry="model.onnx",
        signature=Signature(inputs=(TensorSpec(name="features", shape=("batch", 4)),)),
    )  # fmt: skip
    stored = tmp_path / "artifact"
    stored.mkdir()
    graph(stored, location.replace("link.bin", "../secret.bin"))
    with pytest.raises(ArtifactError):
        runtimes.load(seal(stored, manifest))


def test_graph_with_operators_of_an_unknown_library_does_not_load(tmp_path: Path) -> None:
    """Custom operators need a library; nothing that an artifact says makes the runtime load one."""
    import onnx

    artifact = dense_artifact(tmp_path / "a")
    model = onnx.load(artifact.entry)
    model.graph.node[0].domain, model.graph.node[0].op_type = "evil", "Run"
    model.opset_import.add(domain="evil", version=1)
    onnx.save(model, artifact.entry)
    with pytest.raises(ArtifactError, match="ONNX Runtime can't load it"):
        runtimes.load(seal(artifact.path, artifact.manifest))


@pytest.mark.parametrize("dtype", ["load", "eval", "__dict__", "core", ["float32"]])
def test_mlx_graph_takes_no_word_of_the_file_for_an_attribute(tmp_path: Path, dtype: Any) -> None:
    pytest.importorskip("mlx")
    from safetensors.numpy import save_file

    artifact = dense_artifact(tmp_path / "a")
    content = {"version": 1, "dtype": dtype, "nodes": [], "compressed": {}, "constants": {}}
    (artifact.path / "graph.json").write_text(json.dumps(content))
    save_file({"w": np.ones(2, np.float32)}, artifact.path / "weights.safetensors")
    manifest = artifact.manifest.model_copy(update={"runtime": "mlx", "entry": "graph.json"})
    with pytest.raises(ArtifactError, match="MLX can't load it"):
        runtimes.load(seal(artifact.path, manifest))


@pytest.mark.parametrize("name", ["rows.npz", "rows.parquet"])
def test_data_is_read_without_pickles(tmp_path: Path, mark: Path, name: str) -> None:
    write_recipe_of(tmp_path, "model.onnx")
    if name == "rows.npz":
        np.savez(tmp_path / name, features=np.array([Payload(mark)], dtype=object))
        mark.unlink(missing_ok=True)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(RecipeError, match="can't be read as"):
        load_dataset(load_recipe(tmp_path / "recipe.yaml"), "evaluation", DataSpec(source=name), None)
    assert not mark.exists()


def test_pickle_in_place_of_an_npz_is_not_loaded(tmp_path: Path, mark: Path) -> None:
    write_recipe_of(tmp_path, "model.onnx")
    (tmp_path / "rows.npz").write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(RecipeError, match=r"can't be read as \.npz"):
        load_dataset(load_recipe(tmp_path / "recipe.yaml"), "evaluation", DataSpec(source="rows.npz"), None)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("runtime", "entry"),
    [("sklearn", "m.skops"), ("xgboost", "m.ubj"), ("xgboost", "m.json"), ("lightgbm", "m.txt"), ("torch", "m.pt2"),
     ("onnx", "m.onnx"), ("mlx", "graph.json"), ("openvino", "m.xml"), ("openvino", "m.pdmodel")],
)  # fmt: skip
def test_pickle_in_an_artifact_is_not_unpickled(tmp_path: Path, mark: Path, runtime: str, entry: str) -> None:
    """The loaders of serving and of the proof, without what a recipe checks before."""
    if not runtimes.runtime_class(runtime).availability().usable:
        pytest.skip(f"no {runtime} here")
    base = dense_artifact(tmp_path / "a")
    (base.path / entry).write_bytes(pickle.dumps(Payload(mark)))
    artifact = seal(base.path, base.manifest.model_copy(update={"runtime": runtime, "entry": entry}))
    with pytest.raises(HoneError):
        runtimes.load(Artifact.open(artifact.path))
    assert not mark.exists()
