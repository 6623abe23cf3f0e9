"""Train the digits network and save its weights beside this file: `python examples/digits/train.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
import model as digits

WEIGHTS = Path(__file__).parent / "model.safetensors"


def main() -> None:
    network = digits.build()
    torch.manual_seed(digits.SEED)
    network = digits.train(network, epochs=30)
    data = digits.evaluation()
    with torch.inference_mode():
        predicted = network(torch.from_numpy(data["image"])).argmax(1).numpy()
    save_file(network.state_dict(), WEIGHTS)
    accuracy = (predicted == data["label"]).mean()
    sys.stdout.write(f"trained the digits network: accuracy {accuracy:.4f} on {len(predicted)} evaluation rows\n")


if __name__ == "__main__":
    main()
