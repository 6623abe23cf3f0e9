"""Passes that make a network smaller or train it again: prune, sparsify, distill, quantization-aware training."""
