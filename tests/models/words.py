"""A tiny text model: the mean of its words' vectors, with the steps around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hone.artifact import Artifact, Manifest, Selection, seal
from hone.signature import Signature, TensorSpec
from hone.steps.packing import packed_steps
from hone.steps.record import Steps

WORDS = ("[PAD]", "[UNK]", "good", "bad", "film", "a", "very", "dull")
WIDTH = 3
INPUTS = (
    TensorSpec(name="input_ids", dtype="int64", shape=("batch", "sequence"), pad_value=0),
    TensorSpec(name="attention_mask", dtype="int64", shape=("batch", "sequence"), pad_value=0),
)
TOKENIZE: dict[str, Any] = {"tokenize": {"file": "tokenizer.json", "max_length": 64}}


def vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(len(WORDS), WIDTH)).astype(np.float32)


def mean_of(*words: str) -> np.ndarray:
    """Return what the model makes of words."""
    return vectors()[[WORDS.index(word) for word in words]].mean(axis=0)


def write_tokenizer(folder: Path) -> Path:
    """Write the tokenizer.json of words that blanks part."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def outputs_of(output: str, each: bool) -> tuple[TensorSpec, ...]:
    if not each:
        return (TensorSpec(name=output, shape=("batch", WIDTH)),)
    return tuple(TensorSpec(name=name, shape=("batch", "sequence", WIDTH)) for name in (output, "states"))


def write_model(path: Path, output: str = "embedding", *, each: bool = False) -> Path:
    """Write ids and mask to the mean of the unmasked words' vectors, or to each of them, masked and not."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["states"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["states", "column"], [output if each else "kept"]),
        helper.make_node("ReduceSum", ["kept", "one"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "one"], ["count"], keepdims=1),
        helper.make_node("Div", ["total", "count"], [output]),
    ][: 4 if each else None]
    outputs = [
        helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, spec.shape) for spec in outputs_of(output, each)
    ]
    ids = [helper.make_tensor_value_info(spec.name, TensorProto.INT64, list(spec.shape)) for spec in INPUTS]
    graph = helper.make_graph(
        nodes,
        "words",
        ids,
        outputs,
        [
            numpy_helper.from_array(vectors(), "table"),
            numpy_helper.from_array(np.array([-1]), "last"),
            numpy_helper.from_array(np.array([1]), "one"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def words_artifact(
    path: Path, *, name: str = "words", output: str = "embedding", post: tuple[Any, ...] = (), each: bool = False
) -> Artifact:
    """Return a sealed artifact of the model that takes text."""
    path.mkdir(parents=True)
    write_tokenizer(path.parent)
    write_model(path / "model.onnx", output, each=each)
    steps, files = packed_steps(Steps.model_validate({"preprocess": [TOKENIZE], "postprocess": post}), path.parent)
    for place, file in files.items():
        (path / place).parent.mkdir(exist_ok=True)
        (path / place).write_bytes(file.read_bytes())
    outputs = outputs_of(output, each)
    return seal(
        path,
        Manifest(
            name=name,
            variant="onnx-fp32",
            runtime="onnx",
            precision="fp32",
            entry="model.onnx",
            signature=Signature(inputs=INPUTS, outputs=outputs),
            steps=steps,
            selection=Selection(run="1", rank=0, eligible=True),
        ),
    )
