"""Rewriting torch's packed attention, `nn.MultiheadAttention` of one sequence with itself, to one fused operator.

The module multiplies by queries', keys' and values' weights at once, with the sequence as the first axis, and folds the
heads into the batch: a form that onnxscript's own rules don't know.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import RewriteRuleClassBase, RewriteRuleSet, rewrite
from onnxscript.rewriter._ir_utils import get_numpy_value, get_singleton_value
from onnxscript.rewriter.pattern import Var
from onnxscript.rewriter.rules.common import transpose_transpose_rule

SWAP = (1, 0, 2)
"""Between [batch, length, width] and [length, batch, width]."""


class PackedAttention(RewriteRuleClassBase):
    """Packed projection, attention and output projection -> MatMul, Split, MultiHeadAttention, MatMul, Add.

    Args:
        kernel: by `scaled_dot_product_attention`, which has an axis for heads; else by the matrix products of
            `need_weights=True`, where heads are part of the batch.
        masked: a mask is added to the scores.
    """

    def __init__(self, kernel: bool, masked: bool) -> None:
        # Shapes are computed from values inside the pattern; what isn't read any more is dropped later.
        super().__init__(f"packed_attention_{kernel}_{masked}", remove_nodes=False)
        self._kernel, self._masked = kernel, masked

    def pattern(
        self, op: Any, x: Any, weight: Any, bias: Any, q_scale: Any, k_scale: Any, mask: Any, out: Any,
        s0: Any, s1: Any, s2: Any, s3: Any, s4: Any, s5: Any, s6: Any, s7: Any, s8: Any, s9: Any, s10: Any,
    ) -> Any:  # fmt: skip
        """Match from sequence first [length, batch, width] to the same; s0 to s10 are the shapes of Reshape."""
        packed = op.Reshape(op.Add(op.MatMul(x, weight), bias), s0)
        packed = op.Squeeze(op.Transpose(op.Unsqueeze(packed, [0]), perm=[3, 1, 2, 0, 4]), [-2])
        q = op.Transpose(op.Reshape(op.Gather(packed, 0, axis=0), s1, _outputs=["heads"]), perm=[1, 0, 2])
        k = op.Reshape(op.Gather(packed, 1, axis=0), s2)
        v = op.Transpose(op.Reshape(op.Gather(packed, 2, axis=0), s3), perm=[1, 0, 2])
        if self._kernel:
            q, v = op.Reshape(q, s4, _outputs=["by_head"]), op.Reshape(v, s6)
            k = op.Reshape(op.Reshape(op.Transpose(k, perm=[1, 0, 2]), s5), s7)
            k = op.Mul(op.Reshape(op.Transpose(k, perm=[0, 2, 1]), s8), k_scale)
        else:
            k = op.Transpose(k, perm=[1, 2, 0])
        scores = op.MatMul(op.Mul(q, q_scale), k)
        if self._masked:
            scores = op.Add(scores, mask)
        mixed = op.MatMul(op.Softmax(scores, axis=-1, _outputs=["weights"]), v)
        mixed = op.Transpose(mixed, perm=[2, 0, 1, 3] if self._kernel else [1, 0, 2])
        out_bias = Var("out_bias", can_match_none=True)  # one of zeros is dropped by the exporter
        mixed = op.Reshape(mixed, s9)
        projected = op.Gemm(mixed, out, out_bias, alpha=1.0, beta=1.0, transA=0, transB=1)
        return op.Reshape(projected, s10, _outputs=["result"])

    def check(  # type: ignore[override]  # the rewriter passes what the pattern names
        self, context: Any, x: Any, weight: Any, heads: Any, weights: Any, result: Any, **rest: Any
    ) -> Any:
        """Accept what reads as attention by its sizes, with constant weights, whose weights nothing else reads."""
        packed = get_numpy_value(weight)
        scales = [get_singleton_value(rest[name]) for name in ("q_scale", "k_scale") if rest.get(name) is not None]
        known = (get_numpy_value(rest["bias"]), get_numpy_value(rest["out"]), *scales)
        if packed is None or any(value is None for value in known):
            return False
        shapes = [value.shape for value in (x, heads, result)]
        if any(shape is None or len(shape) != 3 for shape in shapes):
            return False
        width, head = packed.shape[1] // 3, shapes[1][2]
        if not isinstance(head, int) or width % head or not all(_same(shapes[0][0], s[0]) for s in shapes):
            return False
        by_head = rest.get("by_head")
        if by_head is not None and (by_head.shape is None or by_head.shape[1] != width // head):
            return False
        if self._masked and rest["mask"].shape is None:
            return False
        return len(weights.uses()) == 1 and not weights.is_graph_output()

    def rewrite(self, op: Any, x: Any, weight: Any, bias: Any, out: Any, heads: Any, q_scale: Any, **rest: Any) -> Any:
        """Return the same with the batch first inside: [batch, length, width]."""
        count = weight.shape[1] // 3 // heads.shape[2]
        scale = float(get_singleton_value(q_scale))
        if self._kernel:
            scale *= float(get_singleton_value(rest["k_scale"]))
        rows = op.Transpose(x, perm=SWAP)
        sizes = op.Constant(value_ints=[weight.shape[1] // 3] * 3)
        q, k, v = op.Split(op.MatMul(rows, weight), sizes, axis=-1, _outputs=3)
        inputs = [q, k, v, bias]
        if self._masked:
            inputs += [None, self._full_mask(op, rest["mask"], x, count)]
        mixed = op.MultiHeadAttention(*inputs, num_heads=count, scale=scale, _domain="com.microsoft")
        turned = np.ascontiguousarray(np.transpose(get_numpy_value(out)))  # type: ignore[arg-type]  # checked above
        turned = op.initializer(ir.tensor(turned), f"{out.name}_turned_{x.name}")
        result = op.MatMul(mixed, turned)
        if rest.get("out_bias") is not None:
            result = op.Add(result, rest["out_bias"])
        return op.Transpose(result, perm=SWAP)

    def _full_mask(self, op: Any, mask: Any, x: Any, count: int) -> Any:
        """Return the mask as MultiHeadAttention takes it: [batch or 1, heads or 1, length, length]."""
        one, length = op.Constant(value_ints=[1]), op.Shape(x, start=0, end=1)
        if self._kernel or len(mask.shape) < 3 or mask.shape[0] == 1:
            return op.Expand(mask, op.Concat(one, one, length, length, axis=0))
        folded = op.Expand(mask, op.Concat(one, length, length, axis=0))
        sizes = op.Concat(op.Constant(value_ints=[-1, count]), length, length, axis=0)
        return op.Reshape(folded, sizes)


def _same(a: Any, b: Any) -> bool:
    """Return whether two axes are known to be equal; unnamed ones aren't."""
    return a == b and (isinstance(a, int) or a.value is not None)


def fuse_packed_attention(model: ir.Model) -> None:
    """Rewrite every packed attention in a graph, in place."""
    from onnx_ir.passes.common import ShapeInferencePass

    ShapeInferencePass()(model)
    rules = [PackedAttention.rule(kernel, masked) for kernel in (True, False) for masked in (True, False)]
    rewrite(model, RewriteRuleSet(rules))
    rewrite(model, RewriteRuleSet([transpose_transpose_rule]))
