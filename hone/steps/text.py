"""Text to tokens, by a tokenizer.json of the library `tokenizers`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from hone.errors import InputError, UnavailableError, one_line
from hone.signature import BATCH
from hone.steps.base import (
    COUNTS,
    Columns,
    ColumnSpec,
    Run,
    Specs,
    Step,
    StepError,
    check_bytes,
    located,
    number_dtype,
)

AT_ONCE = 64
"""Texts that are tokenized in one call, which holds over a hundred bytes a token, cut off or not, until it returns."""
TOKEN_BYTES = 3 * np.dtype(np.int64).itemsize
"""Of a token that a text has or is filled up with: its id, its place in the mask, its type."""


class Tokenize(Step):
    """Text to tokens, by a `tokenizer.json`."""

    package: ClassVar[str] = "tokenizers"
    file_fields: ClassVar[tuple[str, ...]] = ("file",)

    file: str = Field(description="A tokenizer.json beside the recipe; or `package:path`, of an installed package.")
    input: str = Field("text", description="What callers name the text.")
    max_length: int = Field(gt=0, le=1 << 20, description="Most tokens of a text, special ones counted.")
    truncation: bool = Field(True, description="Cut longer texts; false refuses them.")
    padding: Literal["longest", "fixed"] = Field(
        "longest", description="Fill texts up to the longest that run together, or to max_length."
    )
    max_bytes: int = Field(65_536, gt=0, description="Most bytes of a text in UTF-8; a longer one is refused.")
    ids: str = Field("input_ids", description="The model's input of token ids.")
    mask: str = Field("attention_mask", description="Its input that is 1 where a token is; if it has one.")
    types: str = Field("token_type_ids", description="Its input of token types; if it has one.")

    @model_validator(mode="after")
    def _names_differ(self) -> Tokenize:
        if len({self.ids, self.mask, self.types}) < 3:
            raise ValueError("ids, mask and types must be three inputs")
        return self

    def takes(self, known: Specs, wanted: Specs) -> list[ColumnSpec]:
        return [ColumnSpec(name=self.input, dtype="string", shape=(BATCH,), sample="An example.")]

    def gives(self, known: Specs, wanted: Specs) -> list[ColumnSpec]:
        if self.ids not in wanted:
            raise StepError(f"the model has no input '{self.ids}'; name its input of token ids in 'ids'")
        given = []
        for name in (self.ids, self.mask, self.types):
            if name in wanted:
                axis = wanted[name].shape[1] if len(wanted[name].shape) == 2 else "sequence"
                length = self.max_length if self.padding == "fixed" else axis if isinstance(axis, str) else "sequence"
                dtype = number_dtype(wanted, name, "iu", "int64")
                given.append(ColumnSpec(name=name, dtype=dtype, shape=(BATCH, length)))
        return given

    def bind(self, folder: Path, known: Specs) -> Run:
        tokenizer = _load(located(folder, self.file))
        padding = _padding_id(tokenizer)
        tokenizer.no_padding()
        if self.truncation:
            tokenizer.enable_truncation(self.max_length)
        else:
            tokenizer.no_truncation()
        words = tokenizer.get_vocab_size()

        def run(columns: Columns) -> Columns:
            texts = columns[self.input]
            rows = [_given_ids(text, words) for text in texts] if any(type(t) is list for t in texts) else None
            types = None
            if rows is None:
                checked = [self._checked(text, row) for row, text in enumerate(texts)]
                rows, types = [], []
                for start in range(0, len(checked), AT_ONCE):
                    encoded = tokenizer.encode_batch_fast(checked[start : start + AT_ONCE])
                    rows += [item.ids for item in encoded]
                    types += [item.type_ids for item in encoded]
            counts = np.fromiter(map(len, rows), np.int64, len(rows))
            self._check_counts(counts)
            length = self.max_length if self.padding == "fixed" else int(counts.max(initial=1))
            check_bytes(columns, len(counts) * length * TOKEN_BYTES)
            mask = (np.arange(length) < counts[:, None]).astype(np.int64)
            return {
                self.ids: _filled(rows, length, padding),
                self.mask: mask,
                self.types: np.zeros_like(mask) if types is None else _filled(types, length, 0),
                COUNTS: counts,
            }

        return run

    def _checked(self, text: Any, row: int) -> str:
        if type(text) is not str:
            raise InputError(f"input '{self.input}': row {row} is {type(text).__name__}, not text")
        if len(text) > self.max_bytes or len(text.encode("utf-8", "surrogatepass")) > self.max_bytes:
            raise InputError(f"input '{self.input}': row {row} has more than {self.max_bytes} bytes of text")
        return text

    def _check_counts(self, counts: np.ndarray) -> None:
        if counts.size and not counts.all():
            raise InputError(f"input '{self.input}': row {int(counts.argmin())} has no tokens")
        if counts.size and int(counts.max()) > self.max_length:
            raise InputError(
                f"input '{self.input}': row {int(counts.argmax())} has {int(counts.max())} tokens, the model takes "
                f"{self.max_length}"
            )


def _filled(rows: list[list[int]], length: int, padding: int) -> np.ndarray:
    filled = np.full((len(rows), length), padding, np.int64)
    for index, row in enumerate(rows):
        filled[index, : len(row)] = row
    return filled


def _given_ids(row: Any, words: int) -> list[int]:
    """Return tokens that a caller made himself."""
    if type(row) is not list or not all(type(token) is int and 0 <= token < words for token in row):
        raise InputError(f"tokens must be lists of whole numbers from 0 to {words - 1}")
    return row


def _load(path: Path) -> Any:
    # Threads of its own would take the cores that the model computes with.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UnavailableError("the step 'tokenize' needs tokenizers", "pip install 'hone[steps]'") from None
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the library raises plain exceptions
        raise StepError(f"{path.name}: is no tokenizer.json: {one_line(error)}") from None


def _padding_id(tokenizer: Any) -> int:
    """Return the token that the file fills texts up with; without one 0, which the mask leaves out."""
    known = (tokenizer.padding or {}).get("pad_id")
    for name in ("[PAD]", "<pad>"):
        known = tokenizer.token_to_id(name) if known is None else known
    return int(known or 0)
