"""Rows that a model can be tried with."""

from __future__ import annotations

import logging

import orjson

from hone.artifact import EXAMPLE, Artifact
from hone.errors import HoneError
from hone.signature import Tensors
from hone.steps.ready import offered_by

from ..protocols.json_tensors import parse_inputs

logger = logging.getLogger("hone.serving")


def example_inputs(artifact: Artifact) -> Tensors:
    """Return the rows that the artifact keeps (`example.json`), else zeros of the signature."""
    file = artifact.path / EXAMPLE
    if file.is_file() and EXAMPLE in artifact.manifest.files:
        try:
            return parse_inputs(orjson.loads(file.read_bytes())["inputs"], artifact.signature)
        except (HoneError, ValueError, KeyError) as error:
            logger.warning("%s: not usable as an example: %s", file, error)
    return zero_inputs(artifact)


def example_request(artifact: Artifact, *, real_rows: bool) -> Tensors:
    """Return rows as callers give them: made-up ones where steps make the inputs of these, else as `example_inputs`,
    or zeros."""
    if artifact.manifest.steps:
        return {spec.name: spec.example() for spec in offered_by(artifact).inputs}
    return example_inputs(artifact) if real_rows else zero_inputs(artifact)


def zero_inputs(artifact: Artifact) -> Tensors:
    """Return a row of zeros for each input, which tells nothing but its shape."""
    return {spec.name: spec.example() for spec in artifact.signature.inputs}
