"""Training of Keras models for zeros and for int8, with tensorflow-model-optimization.

That package takes Keras 2 models (tf_keras) only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from hone.artifact import Artifact
from hone.errors import PassError, UnavailableError, one_line

from ...context import PassContext

WHOLE = 2**31
"""A step that no training reaches."""


def toolkit(name: str, model: Artifact) -> Any:
    """Return tensorflow-model-optimization, for a pass on a Keras 2 model.

    Raises:
        PassError: the model is of Keras 3.
        UnavailableError: the package is not installed.
    """
    from hone.runtimes.keras import import_tensorflow, written_by

    if not written_by(model.entry).startswith("2."):
        raise PassError(
            f"{name}: tensorflow-model-optimization takes Keras 2 models, this one was saved by Keras "
            f"{written_by(model.entry)}; build it with tf_keras, or use quantize_static"
        )
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import_tensorflow()
    try:
        import tensorflow_model_optimization as tfmot
    except ImportError as error:
        raise UnavailableError(f"{error.name} is not installed", "pip install 'hone[tensorflow]'") from None
    return tfmot


@dataclass(frozen=True)
class Zeros:
    """Which weights become zero.

    Attributes:
        share: of each layer's.
        threshold: instead: those of smaller magnitude, counted before training.
        pattern: `unstructured`, or `2:4`.
        steps: in which the zeros are reached; 1 takes one at every batch.
    """

    share: float | None
    threshold: float | None
    pattern: str
    steps: int

    def of(self, layer: Any) -> float:
        """Return the share of a layer's weights."""
        if self.threshold is None:
            return self.share or 0.0
        kernel = getattr(layer, "kernel", None)
        return 0.0 if kernel is None else float((np.abs(np.asarray(kernel)) < self.threshold).mean())


def train_sparse(model: Artifact, zeros: Zeros, *, epochs: int, context: PassContext) -> tuple[Any, dict[str, float]]:
    """Prune by magnitude with a polynomial decay over the whole fine-tuning, then strip the wrappers.

    Without a `train` hook, or epochs, the zeros are written once, by the same rule.

    Args:
        model: a Keras 2 model.
        zeros: that it gets.
        epochs: of fine-tuning in all.
        context: holds the hook.

    Returns:
        The network, and the share of zeros by layer.

    Raises:
        PassError: tensorflow-model-optimization can't prune the model, or nothing became zero.
        UnavailableError: it is not installed.
    """
    from hone.runtimes.keras import read_model

    pruning = toolkit("sparsify", model).sparsity.keras
    network = read_model(model.entry, model.manifest.runtime_options)
    train = context.train is not None and epochs > 0
    try:
        wrapped, schedules = _wrapped(network, zeros, pruning, train=train)
    except Exception as error:
        raise PassError(f"sparsify: {one_line(error)}") from error
    if train:
        context.progress(f"fine-tuning, {epochs} epochs")
        ends = [_schedule_end(schedule, zeros.steps) for schedule in schedules]
        with _with_callbacks(wrapped, [*ends, pruning.UpdatePruningStep()]):
            wrapped = context.fine_tune(wrapped, epochs)
    else:
        _write_zeros(wrapped)
    stripped = pruning.strip_pruning(wrapped)
    shares = _sparsity(stripped)
    if not any(shares.values()):
        raise PassError(
            "sparsify: no weight is zero: there is no layer that can be pruned, or the train hook doesn't call fit()"
        )
    return stripped, shares


def _wrapped(network: Any, zeros: Zeros, pruning: Any, *, train: bool) -> tuple[Any, list[Any]]:
    """Return a network whose layers are pruned, and the schedules that they are pruned by."""
    from tf_keras.models import clone_model

    groups = {"sparsity_m_by_n": (2, 4)} if zeros.pattern == "2:4" else {}

    def schedule(share: float) -> Any:
        if train and zeros.pattern == "unstructured":
            return pruning.PolynomialDecay(0.0, share, 0, WHOLE, frequency=1)
        return pruning.ConstantSparsity(share, 0, frequency=1)

    if zeros.threshold is None:
        one = schedule(zeros.of(None))
        return pruning.prune_low_magnitude(network, pruning_schedule=one, **groups), [one]
    schedules: list[Any] = []

    def wrap(layer: Any) -> Any:
        share = zeros.of(layer)
        if not share:
            return layer
        if share == 1:
            raise PassError(
                f"every weight of layer '{layer.name}' is below the threshold {zeros.threshold:g}; lower it"
            )
        schedules.append(schedule(share))
        return pruning.prune_low_magnitude(layer, pruning_schedule=schedules[-1])

    wrapped = clone_model(network, clone_function=wrap)
    if not schedules:
        raise PassError(f"no weight is below the threshold {zeros.threshold:g}; raise it")
    return wrapped, schedules


def _write_zeros(wrapped: Any) -> None:
    """Mask the smallest weights of every wrapped layer at once, without training."""
    for layer in wrapped.layers:
        if hasattr(layer, "pruning_obj"):
            layer.pruning_step.assign(0)
            layer.pruning_obj.conditional_mask_update()
            layer.pruning_obj.weight_mask_op()


def train_quantized(model: Artifact, epochs: int, context: PassContext) -> tuple[Any, int]:
    """Return a network with fake quantization in it, trained by the recipe's hook, and how many layers have it.

    Raises:
        PassError: naming the layer that tensorflow-model-optimization can't quantize.
    """
    from hone.runtimes.keras import read_model

    tfmot = toolkit("qat", model)
    network = read_model(model.entry, model.manifest.runtime_options)
    try:
        quantized = tfmot.quantization.keras.quantize_model(network)
    except Exception as error:
        raise PassError(f"qat: {one_line(error)}; use quantize_static for this model") from error
    context.progress(f"quantization-aware training, {epochs} epochs")
    trained = context.fine_tune(quantized, epochs, "qat")
    wrapped = [layer for layer in trained.layers if type(layer).__name__.startswith("QuantizeWrapper")]
    if not wrapped:
        raise PassError("qat: the train hook returned another model than the one it was given")
    return trained, len(wrapped)


@contextmanager
def _with_callbacks(network: Any, callbacks: list[Any]) -> Iterator[None]:
    """Add callbacks to every `fit` of a model: the recipe's hook calls it and knows nothing of pruning."""
    fit: Callable[..., Any] = network.fit

    def fit_with(*arguments: Any, **keywords: Any) -> Any:
        keywords["callbacks"] = [*(keywords.get("callbacks") or []), *callbacks]
        return fit(*arguments, **keywords)

    network.fit = fit_with
    try:
        yield
    finally:
        del network.fit


def _schedule_end(schedule: Any, steps: int) -> Any:
    """Return a callback that lets the decay end after three quarters of the training, as long as that is.

    The schedule is read when the first batch is traced, which is after training began. The last quarter trains with
    the final zeros.
    """
    from tf_keras.callbacks import Callback

    class End(Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            if not hasattr(schedule, "end_step"):
                return
            batches = (self.params.get("steps") or 1) * (self.params.get("epochs") or 1)
            schedule.end_step = max(1, batches * 3 // 4)
            schedule.frequency = max(1, schedule.end_step // steps) if steps > 1 else 1

    return End()


def _sparsity(network: Any) -> dict[str, float]:
    """Return the share of zeros in each layer's kernel."""
    return {
        layer.name: round(float((np.asarray(layer.kernel) == 0).mean()), 4)
        for layer in network.layers
        if hasattr(layer, "kernel")
    }
