"""A program of its own: an exported program of torch (.pt2) to LiteRT's format, with litert-torch.

It imports nothing of Hone, because litert-torch asks for other versions of packages than Hone has.

    python to_litert.py PROGRAM ROWS TARGET

PROGRAM is the .pt2 file, ROWS an .npz with an array for each argument, `0`, `1`, …, or by name, TARGET the .tflite
file. The model takes as many rows at a time as the arrays have.
"""

from __future__ import annotations

import sys


def main(program: str, rows: str, target: str) -> None:
    import litert_torch
    import numpy as np
    import torch

    with np.load(rows) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    positional = tuple(arrays[name] for name in sorted((name for name in arrays if name.isdigit()), key=int))
    keywords = {name: array for name, array in arrays.items() if not name.isdigit()}
    module = torch.export.load(program).module()
    litert_torch.convert(module, positional, keywords or None).export(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
