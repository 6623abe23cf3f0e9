"""Train the networks and save their weights beside this file: `python examples/vision/train.py [NAME …]` (minutes)."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
import model

EPOCHS = {"resnet18": 4, "depthwise": 16}


def main() -> None:
    rows = model.evaluation()
    for name in sys.argv[1:] or EPOCHS:
        torch.manual_seed(model.SEED)
        network = model.train(getattr(model, name)(), EPOCHS[name])
        with torch.inference_mode():
            predicted = network(torch.from_numpy(rows["image"])).argmax(1).numpy()
        save_file(network.state_dict(), Path(__file__).with_name(f"{name}.safetensors"))
        count = sum(parameter.numel() for parameter in network.parameters())
        accuracy = (predicted == rows["label"]).mean()
        sys.stdout.write(f"{name}: {count:,} parameters, accuracy {accuracy:.4f} on {len(predicted)} evaluation rows\n")


if __name__ == "__main__":
    main()
