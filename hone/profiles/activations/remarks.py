"""What is to be known of a layer's values, most of it for int8; each is one line with what to do."""

from __future__ import annotations

from hone.profiles.activations.graph import RECTIFIERS, Value
from hone.profiles.activations.record import Layer, Remark

OUTLYING = 10.0
"""Times the median channel's largest magnitude, from which a channel is an outlier."""
NOISY = 0.02
"""Of the deviation: int8 steps from which a layer is worth a thought."""
CLIPPED = 0.6
"""Of that noise: what has to be left when a range of 99.8 % of the values is taken, for it to be worth that."""
SATURATED = 0.5
SPREAD = 4.0
"""Times the median channel's range, from which one scale for all of a layer's weights is too coarse."""
PRODUCTS = ("MatMul", "Gemm", "FusedMatMul", "Attention")


def remarks(layer: Layer, value: Value) -> tuple[Remark, ...]:
    """Return what is remarkable of a layer."""
    found = [_not_finite(layer), _dead(layer), _saturated(layer), _outliers(layer), _wide(layer), _weights(value)]
    return tuple(remark for remark in found if remark is not None)


def _not_finite(layer: Layer) -> Remark | None:
    if not layer.not_finite:
        return None
    what = f"{layer.not_finite:,} values are NaN or infinite"
    return Remark(kind="not_finite", what=what, remedy="a mask's are harmless; elsewhere keep the node in float32")


def _dead(layer: Layer) -> Remark | None:
    if not layer.dead or layer.operator not in RECTIFIERS:
        return None
    what = f"{layer.dead} of {layer.channels} units are zero for every row"
    return Remark(kind="dead", what=what, remedy="pass prune takes them out")


def _saturated(layer: Layer) -> Remark | None:
    if layer.saturated is None or layer.saturated < SATURATED:
        return None
    return Remark(kind="saturated", what=f"{layer.saturated:.0%} of the values are at the ends of {layer.operator}")


def _outliers(layer: Layer) -> Remark | None:
    if not layer.outliers:
        return None
    first = layer.outliers[0]
    what = f"{len(layer.outliers)} of {layer.channels} channels outlie, channel {first.channel} {first.ratio:.0f} times"
    if any(name in PRODUCTS for name in layer.feeds):
        return Remark(kind="outliers", what=what, remedy="smooth before int8, or quantize_weights, or quantize_mixed")
    return Remark(kind="outliers", what=what, remedy="leave what takes it in float (exclude), or quantize_mixed")


def _wide(layer: Layer) -> Remark | None:
    noise, clipped = layer.int8_noise, layer.clipped_noise
    if noise is None or noise < NOISY or layer.outliers:
        return None
    what = f"few values set the range, an int8 step's error is {noise:.1%} of the deviation"
    if clipped is None or clipped > CLIPPED * noise:
        return Remark(kind="wide", what=what, remedy="leave what takes it in float (exclude), or quantize_mixed")
    remedy = f"quantize_static with method: percentile or entropy ({clipped:.1%} clipped)"
    return Remark(kind="wide", what=what, remedy=remedy)


def _weights(value: Value) -> Remark | None:
    if value.weights < SPREAD:
        return None
    what = f"its weights' widest channel has {value.weights:.0f} times the median range"
    return Remark(kind="weights", what=what, remedy="keep per_channel: true")
