"""What columns a scikit-learn model takes, as far as the fitted model tells."""

from __future__ import annotations

from typing import Any

import numpy as np

from hone.signature import BATCH, Signature, TensorSpec


def model_inputs(model: Any) -> Signature | None:
    """Return a fitted model's inputs, or None when it doesn't say how many columns it takes.

    A model that starts with a ColumnTransformer and was fitted on named columns has an input [batch, 1] for each of
    them: strings where it encodes or imputes strings, int64 or bool where it encodes these, else float32. All others
    have one float32 matrix [batch, columns].
    """
    split = column_transformer(model)
    names = [str(name) for name in getattr(model, "feature_names_in_", [])]
    if split is not None and names:
        dtypes = _dtypes(split)
        specs = [
            TensorSpec(name=name, dtype=dtypes.get(index, "float32"), shape=(BATCH, 1))
            for index, name in enumerate(names)
        ]
        return Signature(inputs=tuple(specs))
    columns = getattr(model, "n_features_in_", None)
    if not columns:
        return None
    return Signature(inputs=(TensorSpec(name="features", dtype="float32", shape=(BATCH, int(columns))),))


def column_transformer(model: Any) -> Any:
    """Return the ColumnTransformer that a model is or starts with, or None."""
    from sklearn.compose import ColumnTransformer

    first = model.steps[0][1] if getattr(model, "steps", None) else model
    return first if isinstance(first, ColumnTransformer) else None


def _dtypes(split: Any) -> dict[int, str]:
    """Return the dtypes that the parts of a fitted ColumnTransformer tell, by column; strings win."""
    found: dict[int, str] = {}
    for name, part, _ in split.transformers_:
        columns = split._transformer_to_input_indices.get(name, [])
        for column, dtype in zip(columns, _told(part), strict=False):
            if found.get(int(column)) != "string":
                found[int(column)] = dtype
    return found


def _told(part: Any) -> list[str]:
    """Return the dtype of each column of a fitted transformer, or nothing where it doesn't tell.

    Imputers keep the columns in order, so in a pipeline the encoder after them tells, too.
    """
    for step in [step for _, step in getattr(part, "steps", [("", part)])]:
        if hasattr(step, "categories_"):
            return [_dtype(categories) for categories in step.categories_]
        if hasattr(step, "vocabulary_"):
            return ["string"]
        filled = getattr(step, "statistics_", None)
        if filled is None:
            return []
        if any(isinstance(value, str) for value in filled):
            return ["string"] * len(filled)
    return []


def _dtype(categories: Any) -> str:
    """Return the dtype of a column with these categories; a missing value among strings doesn't count."""
    if any(isinstance(value, str) for value in categories):
        return "string"
    kind = np.array(list(categories)).dtype.kind  # columns of several kinds come as objects
    return {"i": "int64", "b": "bool"}.get(kind, "float32")
