"""The table of rules: each preset, what it is for, and what must hold for it to be worth making.

A condition returns why it doesn't hold, or an empty text. A rule with `after` waits for the trial of another preset: it
costs minutes, and is worth them only where that one loses too much (`lossy`), or where it doesn't.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...passes import all_passes
from ..plan import PRESETS
from .facts import Facts

Condition = Callable[[Facts], str]

ROOM = 1.1
"""A size is told from the graph's weights to about so much."""

LARGE_MB = 200.0
"""Weights that are read from memory anew for each row: fewer bytes are then less time, too."""

DENSE_SHARE = 0.1
"""Of the weights, at least, in matrix products and recurrent layers: what dynamic int8 quantizes."""


@dataclass(frozen=True)
class Rule:
    """One preset.

    Attributes:
        preset: its name.
        why: what it may gain, for a reader of the plan.
        needs: what must hold.
        after: the preset whose trial decides whether this one is made; empty: it is made at once.
        lossy: with `after`: that one loses more than the budget allows; False: it doesn't.
    """

    preset: str
    why: str
    needs: tuple[Condition, ...] = ()
    after: str = ""
    lossy: bool = True

    def against(self, facts: Facts) -> str:
        """Return why the preset isn't worth making, or an empty text."""
        if facts.unread and self.preset != FLOAT and self._takes_graph:
            return facts.unread
        return next((reason for need in self.needs if (reason := need(facts))), "")

    @property
    def _takes_graph(self) -> bool:
        """It goes through the model's ONNX graph."""
        return any(all_passes()[name].produces == "onnx" for name, _ in PRESETS[self.preset])

    @property
    def waits_for(self) -> str:
        """In words, what its being made depends on; empty where that is nothing."""
        if not self.after:
            return ""
        return f"if {self.after} {'loses more than the budget allows' if self.lossy else 'keeps to the budget'}"


def multiplies(facts: Facts) -> str:
    if facts.unread:
        return ""
    if facts.graph.trees:
        return "trees compare numbers and multiply none: fewer bits gain nothing"
    return "" if facts.graph.multiplies else "the graph has no layers with weights to store in fewer bits"


def several_texts(facts: Facts) -> str:
    """A text alone has no padding."""
    if not facts.masked:
        return "no input is a mask that says which tokens are real"
    return "" if facts.recipe.budget.at.batch > 1 else "rows are judged one at a time, where none is padded for others"


def in_float(facts: Facts) -> str:
    return "the model is quantized already" if facts.graph.quantized else ""


def dense(facts: Facts) -> str:
    share = facts.graph.in_dense + facts.graph.in_recurrent
    return "" if share >= DENSE_SHARE else f"matrix products hold {share:.0%} of the weights"


def convolutions(facts: Facts) -> str:
    return "" if facts.graph.convolutions else "the graph has no convolutions"


def attention(facts: Facts) -> str:
    if not facts.graph.attention:
        return "the graph has no attention"
    return "" if facts.fuses else f"attention of {facts.framework} models has a form that fuse doesn't know"


def no_attention(facts: Facts) -> str:
    if not facts.graph.attention:
        return ""
    return "activations of transformers have outliers, which ranges taken ahead of time cut off"


def no_recurrence(facts: Facts) -> str:
    return "ranges taken ahead of time don't hold in recurrent layers" if facts.graph.recurrent else ""


def calibration(facts: Facts) -> str:
    return "" if facts.recipe.calibration else "the recipe has no calibration rows"


def train(facts: Facts) -> str:
    return "" if facts.recipe.train else "the recipe has no train hook"


def takes(name: str) -> Condition:
    """The source's framework is one that a pass changes."""
    return lambda facts: "" if facts.accepts(name) else f"{name} changes no {facts.framework} models"


def openvino(facts: Facts) -> str:
    return facts.host.openvino


def litert(facts: Facts) -> str:
    """Its kernels are fast for few rows, and the converter is made for Keras; what torch models need takes a minute."""
    if facts.framework not in ("keras", "savedmodel"):
        return f"{facts.framework} models are converted where a recipe names the preset only"
    return facts.host.litert


def bfloat16(facts: Facts) -> str:
    return "" if facts.host.bfloat16 else "this processor has no bfloat16"


def no_bfloat16(facts: Facts) -> str:
    return "bfloat16 does the same in less time on this processor" if facts.host.bfloat16 else ""


def gpu(facts: Facts) -> str:
    return "" if facts.host.gpu else "this host has no NVIDIA GPU"


def apple(facts: Facts) -> str:
    return "" if facts.host.apple else "this host is not Apple Silicon"


def size_matters(facts: Facts) -> str:
    """Fewer bytes are asked for, or are time."""
    asked = facts.recipe.objective == "size" or facts.recipe.budget.size_mb is not None
    large = facts.graph.weights >= LARGE_MB
    return "" if asked or large else "gains bytes rather than time here, and no size is asked for"


def int8_is_too_large(facts: Facts) -> str:
    """The size that is asked for takes fewer bits than eight."""
    limit = facts.recipe.budget.size_mb
    smallest = facts.recipe.objective == "size" or (limit is not None and facts.graph.weights / 4 > limit)
    return "" if smallest else "weights of 8 bits are small enough"


def half_fits(facts: Facts) -> str:
    return _fits(facts, 0.5, "float16")


def float_fits(facts: Facts) -> str:
    return _fits(facts, 1.0, "float32")


def _fits(facts: Facts, share: float, what: str) -> str:
    size, limit = facts.graph.weights * share, facts.recipe.budget.size_mb
    return f"{what} is about {size:.3g} MB, {limit:g} are allowed" if limit and size > limit * ROOM else ""


FLOAT = "onnx-fp32"
DYNAMIC, STATIC = "onnx-int8-dynamic", "onnx-int8-static"
WEIGHTS = (multiplies, in_float)

RULES: tuple[Rule, ...] = (
    Rule(FLOAT, "the same numbers on ONNX Runtime, which the others have to beat"),
    Rule("onnx-fused-fp32", "attention and normalization run as one operator each", (attention, in_float, float_fits)),
    Rule("onnx-fp16", "half the bytes", (*WEIGHTS, half_fits, size_matters)),
    Rule(DYNAMIC, "dense layers in int8, ranges taken at run time", (*WEIGHTS, dense)),
    Rule("onnx-fused-int8", "fused attention, dense layers in int8", (*WEIGHTS, attention, dense)),
    Rule(STATIC, "weights and activations in int8", (*WEIGHTS, no_attention, no_recurrence, calibration)),
    Rule("onnx-weights-int8", "weights of 8 bits, float arithmetic", (*WEIGHTS, dense, size_matters)),
    Rule("onnx-weights-int4", "weights of 4 bits, float arithmetic", (*WEIGHTS, dense, int8_is_too_large)),
    Rule(
        "onnx-int8-tuned",
        "less the fusions of ONNX Runtime that are slower on this processor",
        (*WEIGHTS, attention, dense, calibration),
        after=DYNAMIC,
        lossy=False,
    ),
    Rule(
        "onnx-smooth-int8-tuned",
        "outlying activations are moved into the weights before int8",
        (*WEIGHTS, attention, dense, calibration),
        after=DYNAMIC,
    ),
    Rule(
        "onnx-smooth-mixed",
        "as smooth-int8, and what int8 hurts most stays in float",
        (*WEIGHTS, attention, dense, calibration),
        after="onnx-smooth-int8-tuned",
    ),
    Rule(
        "onnx-fused-weights-int8",
        "weights in blocks of 8 bits, closest to the source",
        (*WEIGHTS, attention, dense),
        after=DYNAMIC,
    ),
    Rule(
        "onnx-int8-qat", "weights learn to live with int8", (*WEIGHTS, takes("qat"), train, calibration), after=STATIC
    ),
    Rule("openvino-fp32", "another set of kernels", (*WEIGHTS, openvino, float_fits)),
    Rule("openvino-bf16", "this processor computes in bfloat16", (*WEIGHTS, openvino, bfloat16, half_fits)),
    Rule(
        "openvino-int8",
        "weights and activations in int8, other kernels",
        (*WEIGHTS, openvino, no_recurrence, calibration),
    ),
    Rule(
        "openvino-int8-bf16",
        "products in int8, the rest in bfloat16",
        (*WEIGHTS, openvino, bfloat16, no_recurrence, calibration),
    ),
    Rule(
        "openvino-unpadded-fp32",
        "no padding of shorter texts is computed",
        (*WEIGHTS, openvino, no_bfloat16, attention, several_texts, float_fits),
    ),
    Rule(
        "openvino-unpadded-int8",
        "products in int8, without the padding of shorter texts",
        (*WEIGHTS, openvino, no_bfloat16, attention, several_texts, calibration),
    ),
    Rule(
        "openvino-unpadded-bf16",
        "bfloat16, without the padding of shorter texts",
        (*WEIGHTS, openvino, bfloat16, attention, several_texts, half_fits),
    ),
    Rule(
        "openvino-unpadded-int8-bf16",
        "products in int8, without the padding of shorter texts",
        (*WEIGHTS, openvino, bfloat16, attention, several_texts, calibration),
    ),
    Rule("litert", "small and fast kernels, most of all for few rows", (*WEIGHTS, litert, float_fits)),
    Rule("litert-dynamic", "those kernels, dense layers and convolutions in int8", (*WEIGHTS, litert)),
    Rule("litert-int8", "activations in int8, too, those kernels", (*WEIGHTS, litert, no_recurrence, calibration)),
    Rule("litert-fp16", "half the bytes, those kernels", (*WEIGHTS, litert, half_fits, size_matters)),
    Rule(
        "pruned50-onnx-fp32",
        "half the channels, fine-tuned",
        (*WEIGHTS, takes("prune"), convolutions, train, float_fits),
    ),
    Rule(
        "pruned50-onnx-int8",
        "half the channels, fine-tuned, in int8",
        (*WEIGHTS, takes("prune"), convolutions, train, calibration),
    ),
    Rule(
        "pruned30-onnx-fp32",
        "fewer of the channels removed, fine-tuned",
        (*WEIGHTS, takes("prune"), convolutions, train, float_fits),
        after="pruned50-onnx-fp32",
    ),
    Rule(
        "pruned30-onnx-int8",
        "fewer of the channels removed, fine-tuned, in int8",
        (*WEIGHTS, takes("prune"), convolutions, train, calibration),
        after="pruned50-onnx-int8",
    ),
    Rule("onnx-cuda-fp16", "float16 on the GPU", (*WEIGHTS, gpu)),
    Rule("onnx-tensorrt-fp16", "TensorRT's kernels under ONNX Runtime", (*WEIGHTS, gpu)),
    Rule("tensorrt-fp16", "an engine for this GPU", (*WEIGHTS, gpu)),
    Rule("tensorrt-bf16", "an engine for this GPU, float32's range", (*WEIGHTS, gpu)),
    Rule("tensorrt-int8", "an engine for this GPU, in int8", (*WEIGHTS, gpu, no_attention, calibration)),
    Rule("mlx-fp32", "Apple's kernels", (*WEIGHTS, apple)),
    Rule("mlx-q8", "weights of 8 bits on Apple Silicon", (*WEIGHTS, apple, dense)),
    Rule("mlx-q4", "weights of 4 bits on Apple Silicon", (*WEIGHTS, apple, dense, size_matters)),
    Rule(
        "onnx-fused-mixed",
        "fused attention, and what int8 hurts most stays in float",
        (*WEIGHTS, attention, dense, calibration),
        after="onnx-smooth-mixed",
    ),
)
"""In the order in which they are made."""
