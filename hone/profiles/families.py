"""What operators are for, whatever a runtime calls them: variants of several runtimes compare by that."""

from __future__ import annotations

import re

FAMILIES = (
    ("matrix products", r"^DynamicQuantizeMatMul$"),
    ("recurrent layers", r"LSTM|GRU|RNN|lstm|gru"),
    ("attention", r"Attention|attention|SDPA|ScaledDotProduct|MHA"),
    ("quantizing", r"[Qq]uantize"),
    ("casts", r"^Cast|^Convert$|^to$|^_to_copy$"),
    ("convolutions", r"[Cc]onv"),
    ("matrix products", r"MatMul|Matmul|matmul|Gemm|FullyConnected|^(add)?mm$|^bmm$|^linear$|Einsum"),
    ("layout", r"^(QLinear)?(Transpose|Reorder|Memcpy|Reshape|Concat|Split|Slice|Squeeze|Unsqueeze|Expand|copy_$)"),
    ("normalization", r"Norm|MVN|layer_norm|batch_norm"),
    ("softmax", r"[Ss]oftmax"),
    ("activations", r"Relu|relu|Gelu|gelu|Erf|erf|Sigmoid|sigmoid|Tanh|tanh|Clip|clamp|HardSwish|Silu|Swish"),
    ("pooling", r"[Pp]ool|^Reduce|^mean$|^sum$"),
    ("lookups", r"Gather|Embed|embedding|OneHot"),
    ("elementwise", r"(?i)^(QLinear)?(Add|Sub|Mul|Div|Pow|Sqrt|Where|Max|Min)_?$|Eltwise|^Subgraph$"),
)  # fmt: skip
"""Names, and what operators of them are called; the first that fits."""


def family(operator: str) -> str:
    """Return what an operator is for; one of no known kind is its own."""
    return next((name for name, pattern in FAMILIES if re.search(pattern, operator)), operator)
