"""LSTM and GRU in MLX, by the ONNX operator specification; see `hone.runtimes.mlx.ops` for how values are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hone.runtimes.mlx.ops import Attributes, Value, device, operator


def _check(attributes: Attributes) -> None:
    if attributes.get("activations") or attributes.get("clip") or attributes.get("layout", 0):
        raise ValueError("only the default activations, no clip and layout 0 are supported")


def _directions(attributes: Attributes, run: Callable[[int, bool], tuple[Value, ...]]) -> tuple[Value, ...]:
    """Run each direction and join: [time, directions, batch, hidden] outputs, [directions, batch, hidden] states."""
    import mlx.core as mx

    direction = attributes.get("direction", "forward")
    backward = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
    results = [run(index, reverse) for index, reverse in enumerate(backward)]
    outputs = mx.stack([result[0] for result in results], axis=1)
    states = [mx.stack([result[k] for result in results]) for k in range(1, len(results[0]))]
    return (outputs, *states)


@operator("LSTM")
def lstm(
    attributes: Attributes, x: Value, w: Value, r: Value, b: Value = None, lengths: Value = None,
    h0: Value = None, c0: Value = None, p: Value = None,
) -> Any:  # fmt: skip
    """x [time, batch, input]; gates in ONNX's order: input, output, forget, cell."""
    import mlx.core as mx

    _check(attributes)
    if lengths is not None or p is not None:
        raise ValueError("sequence lengths and peepholes are not supported")
    hidden = attributes["hidden_size"]
    w, r = device(w), device(r)

    def run(index: int, reverse: bool) -> tuple[Value, ...]:
        projected = x @ w[index].T
        if b is not None:
            bias = device(b)[index]
            projected = projected + bias[: 4 * hidden] + bias[4 * hidden :]
        zeros = mx.zeros((x.shape[1], hidden), x.dtype)
        h = zeros if h0 is None else device(h0)[index]
        c = zeros if c0 is None else device(c0)[index]
        steps = []
        for moment in range(x.shape[0])[:: -1 if reverse else 1]:
            gates = projected[moment] + h @ r[index].T
            i, o, f, g = mx.split(gates, 4, axis=-1)
            c = mx.sigmoid(f) * c + mx.sigmoid(i) * mx.tanh(g)
            h = mx.sigmoid(o) * mx.tanh(c)
            steps.append(h)
        return mx.stack(steps[:: -1 if reverse else 1]), h, c

    return list(_directions(attributes, run))


@operator("GRU")
def gru(
    attributes: Attributes, x: Value, w: Value, r: Value, b: Value = None, lengths: Value = None, h0: Value = None
) -> Any:
    """x [time, batch, input]; gates in ONNX's order: update, reset, hidden."""
    import mlx.core as mx

    _check(attributes)
    if lengths is not None:
        raise ValueError("sequence lengths are not supported")
    hidden = attributes["hidden_size"]
    w, r = device(w), device(r)
    after = attributes.get("linear_before_reset", 0)

    def run(index: int, reverse: bool) -> tuple[Value, ...]:
        bias = device(b)[index] if b is not None else mx.zeros((6 * hidden,), x.dtype)
        projected = x @ w[index].T + bias[: 3 * hidden]
        update_reset, candidate = r[index][: 2 * hidden], r[index][2 * hidden :]
        bias_gates, bias_candidate = bias[3 * hidden : 5 * hidden], bias[5 * hidden :]
        h = mx.zeros((x.shape[1], hidden), x.dtype) if h0 is None else device(h0)[index]
        steps = []
        for moment in range(x.shape[0])[:: -1 if reverse else 1]:
            row = projected[moment]
            gates = mx.sigmoid(row[:, : 2 * hidden] + h @ update_reset.T + bias_gates)
            z, reset = gates[:, :hidden], gates[:, hidden:]
            recurrent = (
                reset * (h @ candidate.T + bias_candidate) if after else (reset * h) @ candidate.T + bias_candidate
            )
            h = (1 - z) * mx.tanh(row[:, 2 * hidden :] + recurrent) + z * h
            steps.append(h)
        return mx.stack(steps[:: -1 if reverse else 1]), h

    return list(_directions(attributes, run))
