# /// script
# dependencies = ["nncf==3.4.0", "openvino==2026.4.1", "numpy"]
#
# [tool.hone.converter]
# settings = "transformer model type (mixed preset, SmoothQuant), fast bias correction; docs.openvino.ai, post-training"
# modes = ["own"]
# gives = "openvino"
# ///

"""Let NNCF quantize an ONNX file for OpenVINO: `nncf_peer.py own GRAPH ROWS.npz OUT.xml`.

The settings are those of NNCF's documentation, 'Basic Quantization Flow': the calibration rows one by one, and
`model_type` for a model with attention. Prints the lines of code as JSON.
"""

import inspect
import json
import logging
import sys

import numpy as np

LOOKED_FOR = {"Softmax", "ScaledDotProductAttention"}


def quantize(graph, rows, file):
    import nncf
    import openvino as ov

    core = ov.Core()
    model = core.read_model(graph)
    count = len(next(iter(rows.values())))
    items = [{name: array[index : index + 1] for name, array in rows.items()} for index in range(count)]
    kind = nncf.ModelType.TRANSFORMER if is_transformer(model) else None
    ov.save_model(nncf.quantize(model, nncf.Dataset(items), model_type=kind, subset_size=count), file)


def is_transformer(model):
    """Return what a user knows of a model: whether it has attention, softmaxes with matrix products behind them."""
    found = [node for node in model.get_ops() if node.get_type_name() in LOOKED_FOR]
    return any(reaches_product(node) for node in found)


def reaches_product(node):
    if node.get_type_name() == "ScaledDotProductAttention":
        return True
    users = [target.get_node() for output in node.outputs() for target in output.get_target_inputs()]
    return any(user.get_type_name() == "MatMul" for user in users)


def main() -> None:
    _, graph, rows, out = sys.argv[1:]
    # Neither package reports to Intel what is done with it.
    sys.modules["openvino_telemetry"] = None
    logging.disable(logging.WARNING)
    quantize(graph, dict(np.load(rows)), out)
    sys.stdout.write(json.dumps({"lines": len(inspect.getsource(quantize).splitlines())}) + "\n")


if __name__ == "__main__":
    main()
