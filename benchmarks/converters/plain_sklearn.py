"""skl2onnx by itself, as its documentation shows it: what a user of scikit-learn without any other tool would write."""

from __future__ import annotations

import inspect
from pathlib import Path

from hone.artifact import Artifact
from hone.converters.graph.graph_signature import fit_outputs
from hone.converters.graph.onnx_graph import save_graph
from hone.errors import HoneError
from hone.runtimes.sklearn import read_estimator
from hone.signature import Signature


def convert(source: Artifact, signature: Signature, file: Path) -> int:
    """Write an estimator as an ONNX graph; return the lines that its user would write.

    Args:
        source: the estimator.
        signature: of the graph, whose outputs get the same shapes as those that it is compared with.
        file: to write.

    Raises:
        HoneError: it is no model of scikit-learn.
    """
    if source.runtime != "sklearn":
        raise HoneError(f"it takes models of scikit-learn, and this one is of {source.runtime}")
    graph = _converted(source, signature)
    fit_outputs(graph, signature.output_names, signature)
    save_graph(graph, file)
    return len(inspect.getsource(_converted).splitlines())


def _converted(source, signature):  # type: ignore[no-untyped-def]
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    estimator = read_estimator(source.entry, source.manifest.runtime_options)
    inputs = [(spec.name, FloatTensorType([None, *spec.shape[1:]])) for spec in signature.inputs]
    # Its converter of isolation forests asks for this version of the operators for trees.
    return convert_sklearn(estimator, initial_types=inputs, target_opset={"": 18, "ai.onnx.ml": 3})
