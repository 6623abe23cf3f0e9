# /// script
# dependencies = [
#     "olive-ai==0.13.0",
#     "torch==2.13.0",
#     "onnxscript==0.7.2",
#     "requests==2.34.2",
#     "onnxruntime==1.31.1", "numpy",
# ]
#
# [tool.hone.converter]
# settings = "peephole and transformer optimization, then per-channel int8; microsoft.github.io/Olive, quantization"
# modes = ["dynamic", "static"]
# ///

"""Let Olive quantize an ONNX file: `olive_peer.py dynamic|static GRAPH ROWS.npz OUT.onnx`.

The passes and their settings are those of Olive's documentation: peephole and transformer optimization, then dynamic or
static quantization, per channel, calibrated on the same rows. Prints the lines of configuration as JSON.
"""

import glob
import json
import os
import shutil
import sys
import tempfile

os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"

import olive

SCRIPT = """
import numpy as np
from torch.utils.data import Dataset
from olive.data.registry import Registry

class Rows(Dataset):
    def __init__(self):
        self.rows = dict(np.load(ROWS))

    def __len__(self):
        return len(next(iter(self.rows.values())))

    def __getitem__(self, index):
        return {name: array[index] for name, array in self.rows.items()}, 0

@Registry.register_dataset()
def calibration_rows(**kwargs):
    return Rows()
"""


def config(mode: str, graph: str, folder: str, rows: str) -> dict:
    passes = {"peephole": {"type": "OnnxPeepholeOptimizer"}}
    content = {"input_model": {"type": "ONNXModel", "model_path": graph}, "output_dir": folder, "log_severity_level": 3}
    if mode == "dynamic":
        passes["fuse"] = {"type": "OrtTransformersOptimization", "model_type": "bert"}
        passes["quantize"] = {"type": "OnnxDynamicQuantization", "precision": "int8", "per_channel": True}
    else:
        script = os.path.join(folder, "rows.py")
        with open(script, "w") as stream:
            stream.write(SCRIPT.replace("ROWS", repr(rows), 1))
        content["data_configs"] = [
            {
                "name": "rows",
                "user_script": script,
                "load_dataset_config": {"type": "calibration_rows"},
                "dataloader_config": {"batch_size": 16, "drop_last": True},
            }
        ]
        passes["quantize"] = {
            "type": "OnnxStaticQuantization",
            "precision": "int8",
            "activation_type": "uint8",
            "per_channel": True,
            "data_config": "rows",
        }
    content["passes"] = passes
    return content


def main() -> None:
    mode, graph, rows, out = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        content = config(mode, os.path.abspath(graph), folder, os.path.abspath(rows))
        # Counted before the run, which puts its own objects into the configuration.
        lines = len(json.dumps(content, indent=2).splitlines()) + (len(SCRIPT.splitlines()) if mode == "static" else 0)
        olive.run(content)
        found = [file for file in glob.glob(f"{folder}/**/*.onnx", recursive=True) if "cache" not in file]
        if not found:
            sys.exit("Olive wrote no model; its log says why")
        shutil.copyfile(max(found, key=os.path.getmtime), out)
    sys.stdout.write(json.dumps({"lines": lines}) + "\n")


if __name__ == "__main__":
    main()
