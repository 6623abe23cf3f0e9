"""Train the forecasters: python examples/forecast/train.py [NAME …] (some minutes on two cores)."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent))
import model

EPOCHS, ROWS, SEED = 40, 64, 0


def train(network: torch.nn.Module, epochs: int = EPOCHS) -> torch.nn.Module:
    """Fit a network to the training windows; the learning rate falls to zero along a cosine."""
    torch.manual_seed(SEED)
    rows = model.training()
    history, future = torch.from_numpy(rows["history"]), torch.from_numpy(rows["label"])
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    steps = epochs * -(-len(history) // ROWS)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for epoch in range(epochs):
        network.train()
        order = torch.randperm(len(history))
        for chosen in order.split(ROWS):
            optimizer.zero_grad()
            loss = functional.mse_loss(network(history[chosen]), future[chosen])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        if (epoch + 1) % 10 == 0:
            sys.stdout.write(f"epoch {epoch + 1}: rmse {rmse(network):.3f} ppm\n")
    return network.eval()


def rmse(network: torch.nn.Module) -> float:
    rows = model.evaluation()
    network.eval()
    with torch.inference_mode():
        error = network(torch.from_numpy(rows["history"])) - torch.from_numpy(rows["label"])
    return float(error.square().mean().sqrt())


if __name__ == "__main__":
    for name in sys.argv[1:] or ("lstm", "gru", "transformer"):
        torch.manual_seed(SEED)
        network = train(getattr(model, name)())
        save_file(network.state_dict(), Path(__file__).with_name(f"{name}.safetensors"))
        count = sum(parameter.numel() for parameter in network.parameters())
        sys.stdout.write(f"{name}: {count} parameters, rmse {rmse(network):.3f} ppm\n")
