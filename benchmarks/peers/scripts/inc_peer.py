# /// script
# dependencies = ["neural-compressor[pt]==3.10", "torch==2.13.0", "torchao==0.18.0"]
#
# [tool.hone.converter]
# settings = "static W8A8 of PT2E, calibrated row by row; intel.github.io/neural-compressor, PT_StaticQuant"
# modes = ["own"]
# takes = "program"
# gives = "program"
# ///

"""Let Intel Neural Compressor quantize a torch program: `inc_peer.py own PROGRAM.pt2 ROWS.npz OUT.pt2`.

The flow is that of its documentation, 'PyTorch Static Quantization': export, prepare, calibrate, convert; torch
compiles the result with its weights as constants when it is loaded. Prints the lines of code as JSON.
"""

import contextlib
import inspect
import json
import sys

import numpy as np
import torch
from neural_compressor.torch.quantization import StaticQuantConfig, convert, prepare


def quantize(module, rows):
    module._exported = True
    prepared = prepare(module, quant_config=StaticQuantConfig())
    with torch.no_grad():
        for row in rows:
            prepared(*row[0], **row[1])
        return convert(prepared)


def arguments(program, rows, start, stop):
    """Return rows as the program was exported to take them: by position or by name."""
    tensors = {name: torch.from_numpy(array[start:stop]) for name, array in rows.items()}
    keywords = program.example_inputs[1]
    if keywords:
        return (), {name: tensors[name] for name in keywords}
    return tuple(tensors.values()), {}


def main() -> None:
    _, file, rows, out = sys.argv[1:]
    program, rows = torch.export.load(file), dict(np.load(rows))
    count = len(next(iter(rows.values())))
    with contextlib.redirect_stdout(sys.stderr):
        positional, keywords = arguments(program, rows, 0, min(4, count))
        free = {name: dict.fromkeys(range(value.ndim), torch.export.Dim.AUTO) for name, value in keywords.items()}
        free = free or tuple(dict.fromkeys(range(value.ndim), torch.export.Dim.AUTO) for value in positional)
        module = program.module()
        module.dynamic_shapes = free
        made = quantize(module, [arguments(program, rows, index, index + 1) for index in range(count)])
        torch.export.save(torch.export.export(made, positional, keywords, dynamic_shapes=free), out)
    sys.stdout.write(json.dumps({"lines": len(inspect.getsource(quantize).splitlines())}) + "\n")


if __name__ == "__main__":
    main()
