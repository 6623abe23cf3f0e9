"""Folders of Hugging Face as sources: encoders with their pooling, classifiers, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from hone.cli.main import cli
from hone.converters.recipes.init import Given, write_recipe
from hone.converters.sources.torch.huggingface import inspect_folder, tokenized
from hone.data import load_dataset
from hone.errors import RecipeError
from hone.recipe import load_recipe
from tests.models.tokens import write_folder, write_model
from tests.sources import assert_agree, export, ingest
from tests.sources import write_recipe as recipe_of_rows

pytest.importorskip("tokenizers")

TEXTS = np.array(["the cat sat on the mat", "a small red dog ran", "the dog and the cat", "blue road"] * 12)


def test_an_encoder_takes_tokens_and_a_classifier_their_types_too(tmp_path: Path) -> None:
    encoder = inspect_folder(write_folder(tmp_path / "a", pooling="mean_tokens"))
    assert encoder.input_names == ["input_ids", "attention_mask"]
    assert encoder.inputs[0].describe() == "int64[batch, sequence]" and encoder.inputs[0].pad_value == 0
    classifier = inspect_folder(write_folder(tmp_path / "b", "BertForSequenceClassification"))
    assert classifier.input_names == ["input_ids", "attention_mask", "token_type_ids"]


@pytest.mark.parametrize(
    ("changes", "files", "words"),
    [
        ({"auto_map": {"AutoModel": "code.Model"}}, {}, "names code of its own"),
        ({"architectures": ["LlamaForCausalLM"]}, {}, "LlamaForCausalLM is neither an encoder nor a classifier"),
        ({}, {"model.safetensors": None}, r"has no model\.safetensors"),
        ({}, {"model.safetensors": None, "pytorch_model.bin": "x"}, r"pytorch_model\.bin, a pickle; save it with"),
        ({}, {"modules.json": '[{"type": "m.Transformer"}, {"type": "m.Dense"}]'}, "Dense layers are not known"),
        ({}, {"modules.json": "[3]"}, r"modules\.json: not readable"),
        (
            {},
            {"modules.json": "[]", "1_Pooling/config.json": '{"pooling_mode_weightedmean_tokens": true}'},
            "weightedmean_tokens is not known",
        ),
    ],
)
def test_a_folder_that_is_no_such_model_is_refused_in_a_line(
    tmp_path: Path, changes: dict[str, Any], files: dict[str, str | None], words: str
) -> None:
    folder = write_folder(tmp_path / "net", **changes)
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).unlink() if content is None else (folder / name).write_text(content)
    told = CliRunner().invoke(cli, ["init", str(folder)])
    assert told.exit_code == 2 and told.output.startswith("error: ") and told.output.count("\n") == 1
    with pytest.raises(RecipeError, match=words) as error:
        write_recipe(folder, None)
    assert "\n" not in str(error.value) and not (tmp_path / "recipe.yaml").exists()


def test_any_other_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    with pytest.raises(RecipeError, match="is a folder, and no model"):
        write_recipe(tmp_path / "saved", None)


def test_texts_become_tokens_beside_the_recipe(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "net", pooling="cls_token")
    np.savez(tmp_path / "texts.npz", text=TEXTS, topic=np.arange(len(TEXTS)) % 2)
    written = write_recipe(folder, None, given=Given(data=tmp_path / "texts.npz", labels="topic"))
    loaded = load_recipe(written.recipe)
    assert loaded.recipe.source.file == "net" and loaded.recipe.is_auto
    assert written.data is None and "TODO" not in written.recipe.read_text()
    spec = loaded.recipe.signature
    assert spec is not None and spec.inputs["input_ids"].pad_value == 0
    data = load_dataset(loaded, "evaluation", loaded.recipe.evaluation, spec.to_signature())
    assert (tmp_path / "texts-tokens.npz").exists() and data.labels is not None
    assert set(data.inputs) == {"input_ids", "attention_mask"} and data.inputs["input_ids"].shape[1] == 8
    first = tokenized(folder, TEXTS[:1], "here")["input_ids"][0]
    assert first.tolist() == [2, 4, 6, 8, 10, 4, 11, 3]
    unlabeled = write_recipe(folder, tmp_path / "other.yaml", given=Given(data=tmp_path / "texts.npz"))
    assert load_recipe(unlabeled.recipe).recipe.quality.metric == "cosine"


def test_texts_without_a_tokenizer_ask_for_tokens(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "net")
    (folder / "tokenizer.json").unlink()
    np.savez(tmp_path / "texts.npz", text=TEXTS)
    with pytest.raises(RecipeError, match=r"holds texts, and .*net has no tokenizer\.json .*give input_ids"):
        write_recipe(folder, None, given=Given(data=tmp_path / "texts.npz"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "pooling", "shape"),
    [
        ("BertModel", "mean_tokens", (6, 32)),
        ("BertModel", "cls_token", (6, 32)),
        ("BertModel", "max_tokens", (6, 32)),
        ("BertForSequenceClassification", "", (6, 3)),
    ],
)
def test_exported_graph_answers_as_the_folder_does(
    tmp_path: Path, architecture: str, pooling: str, shape: tuple[int, int]
) -> None:
    pytest.importorskip("transformers")
    folder = write_model(tmp_path / "net", architecture, pooling=pooling)
    rows = dict(tokenized(folder, TEXTS[:6], "here"))
    work = ingest(recipe_of_rows(tmp_path, {"file": "net"}, rows), tmp_path / "source")
    (output,) = work.artifact.signature.outputs
    assert output.name == ("embedding" if pooling else "logits")
    graph = export(work, tmp_path / "onnx")
    assert_agree(work, graph, rows, 1e-4)
    from tests.sources import run

    answer = run(graph, rows)[output.name]
    assert answer.shape == shape
    if pooling:
        np.testing.assert_allclose(np.linalg.norm(answer, axis=1), 1, rtol=1e-4)
    cut = {name: array[3:4, :4] for name, array in rows.items()}  # what is filled up changes nothing
    np.testing.assert_allclose(run(graph, cut)[output.name], answer[3:4], atol=1e-4)


@pytest.mark.slow
def test_weights_that_lack_a_layer_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = write_model(tmp_path / "net")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    rows = dict(tokenized(folder, TEXTS[:6], "here"))
    with pytest.raises(RecipeError, match=r"the weights lack encoder\.layer\.2"):
        ingest(recipe_of_rows(tmp_path, {"file": "net"}, rows), tmp_path / "source")


@pytest.mark.slow
def test_real_weights_embed_as_the_written_out_network_does(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    import torch

    from hone.runtimes.torch.huggingface import load_folder
    from hone.userload import load_function

    root = Path(__file__).parents[3] / "examples" / "embeddings"
    folder = load_function("model:folder", root, "example")()
    own = load_function("model:build", root, "example")()
    rows = {name: torch.from_numpy(array) for name, array in tokenized(folder, TEXTS[:4], "here").items()}
    with torch.inference_mode():
        theirs = load_folder(folder)(**rows)["embedding"]
        torch.testing.assert_close(theirs, own(**rows), atol=1e-4, rtol=1e-4)
