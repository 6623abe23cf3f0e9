"""Hugging Face folders as a source: what their models take, and texts turned into tokens by their own tokenizer."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hone.errors import ArtifactError, RecipeError, UnavailableError, one_line
from hone.recipe import LoadedRecipe
from hone.runtimes.torch.huggingface import CONFIG, Folder, read_folder, require
from hone.signature import BATCH, Signature, TensorSpec

from ...context import Built

TOKENIZER = "tokenizer.json"
SEQUENCE = "sequence"


def inspect_folder(path: Path) -> Signature:
    """Return the inputs of a folder's model; rows of several lengths can be filled up.

    Raises:
        RecipeError: it is no encoder and no classifier, or would run code.
    """
    return _signature(_folder(path))


def ingest_folder(loaded: LoadedRecipe, path: Path, out: Path) -> Built:
    """Copy what a folder's model is loaded from."""
    require()
    folder = _folder(path)
    for name in folder.files:
        (out / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(path / name, out / name)
    spec, own = loaded.recipe.signature, _signature(folder)
    signature = spec.to_signature() if spec else own
    if signature.input_names != own.input_names:
        raise RecipeError(
            f"{loaded.path}: signature.inputs: are {', '.join(signature.input_names)}; the model takes "
            f"{', '.join(own.input_names)}"
        )
    note = "" if folder.said or folder.classifies else "the folder says no pooling: embeddings are the mean over tokens"
    return Built(CONFIG, "fp32", signature, runtime_options={}, details={"note": note})


def _folder(path: Path) -> Folder:
    try:
        return read_folder(path)
    except ArtifactError as error:
        raise RecipeError(str(error)) from None


def _signature(folder: Folder) -> Signature:
    pads = {"input_ids": float(folder.config.get("pad_token_id") or 0)}
    return Signature(
        inputs=tuple(
            TensorSpec(name=name, dtype="int64", shape=(BATCH, SEQUENCE), pad_value=pads.get(name, 0.0))
            for name in folder.input_names
        )
    )


def tokenized(path: Path, texts: np.ndarray, where: str) -> Mapping[str, np.ndarray]:
    """Return the tokens of texts, filled up to the longest of them, as the folder's own tokenizer makes them.

    Args:
        path: the folder.
        texts: one a row.
        where: they are from, for messages.

    Raises:
        RecipeError: the folder has no `tokenizer.json`, or one that can't be read.
        UnavailableError: `tokenizers` is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UnavailableError("tokenizers is not installed", "pip install 'hone[transformers]'") from None
    if not (path / TOKENIZER).is_file():
        raise RecipeError(f"{where}: holds texts, and {path} has no {TOKENIZER} to make tokens of them; give input_ids")
    folder = _folder(path)
    try:
        tokenizer = Tokenizer.from_file(str(path / TOKENIZER))
    except Exception as error:
        raise RecipeError(f"{path / TOKENIZER}: not readable: {one_line(error)}") from error
    tokenizer.enable_truncation(folder.longest)
    tokenizer.enable_padding(pad_id=int(folder.config.get("pad_token_id") or 0))
    encoded = tokenizer.encode_batch([str(text) for text in texts])
    tokens = {
        "input_ids": np.array([one.ids for one in encoded], np.int64),
        "attention_mask": np.array([one.attention_mask for one in encoded], np.int64),
        "token_type_ids": np.array([one.type_ids for one in encoded], np.int64),
    }
    return {name: tokens[name] for name in folder.input_names}
