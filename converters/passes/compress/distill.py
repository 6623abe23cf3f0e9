"""Train a smaller student to answer as the source model does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from hone.artifact import Artifact
from hone.data import Dataset, load_dataset
from hone.errors import PassError, RecipeError, one_line
from hone.recipe import DataSpec
from hone.userload import call, load_function

from ...context import Built, PassContext
from ...proof.metrics import stand_in
from ...registry import PassOptions, register

if TYPE_CHECKING:
    import torch

REFERENCE = r"^[\w.]+:\w+$"


class Options(PassOptions):
    """A student network that the recipe's folder defines, trained on the teacher's outputs; labels aren't needed."""

    student: str = Field(
        pattern=REFERENCE, description="`module:function` that returns the untrained student, an nn.Module."
    )
    data: str = Field(
        "", pattern=REFERENCE + "|^$", description="Rows to train on, as calibration is given; default: calibration."
    )
    loss: Literal["auto", "kl", "mse", "cosine"] = Field(
        "auto",
        description="kl compares softened classes, mse values, cosine directions; auto takes what fits the recipe's "
        "metric: kl for metrics of classes, cosine for the cosine, and mse for the rest.",
    )
    temperature: float = Field(2.0, gt=0, description="For kl: higher shows the student more of the small classes.")
    epochs: int = Field(20, ge=1)
    batch: int = Field(64, ge=1)
    learning_rate: float = Field(2e-3, gt=0, description="Of AdamW at its highest; it warms up and falls to zero.")
    seed: int = 0

    def references(self) -> tuple[str, ...]:
        return tuple(reference for reference in (self.student, self.data) if reference)


@register(
    "distill",
    consumes="torch",
    produces="torch",
    options=Options,
    needs=("sample", "quality"),
    tools=("torch",),
)
def distill(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Train a student on the teacher's outputs (Hinton et al. 2015, 'Distilling the Knowledge in a Neural Network').

    The result is stored as an exported program.

    Raises PassError when teacher and student don't fit each other, or the student doesn't learn (a loss that is not
    finite).
    """
    import torch

    from hone.runtimes.torch.runtime import load_module

    from ...sources.torch.export import PROGRAM, save_program

    torch.manual_seed(options.seed)
    student = _student(options, context)
    teacher = load_module(model)
    data = _rows(options, context)
    names = model.signature.input_names
    targets = _outputs(teacher, data, names, options.batch)
    compare = _loss(options, context)
    first, last = _train(student, data, targets, names, compare, options, context)
    student.eval()
    save_program(student, model.signature, context, out / PROGRAM)
    sizes = [sum(parameter.numel() for parameter in network.parameters()) for network in (teacher, student)]
    details = {
        "teacher_parameters": sizes[0],
        "student_parameters": sizes[1],
        "rows": data.rows,
        "epochs": options.epochs,
        "loss_first_epoch": float(f"{first:.4g}"),
        "loss_last_epoch": float(f"{last:.4g}"),
    }
    return Built(PROGRAM, "fp32", model.signature, runtime_options={}, details=details)


def _student(options: Options, context: PassContext) -> torch.nn.Module:
    import torch

    field = f"{context.loaded.path}: distill.student"
    student = call(load_function(options.student, context.loaded.root, field), options.student, field)
    if not isinstance(student, torch.nn.Module):
        raise RecipeError(f"{field}: {options.student} returned {type(student).__name__}, not an nn.Module")
    return student


def _rows(options: Options, context: PassContext) -> Dataset:
    if not options.data:
        return context.calibration
    return load_dataset(context.loaded, "distill.data", DataSpec(**{"from": options.data}), context.signature)


def _batches(data: Dataset, size: int, order: np.ndarray) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
    import torch

    for start in range(0, data.rows, size):
        chosen = order[start : start + size]
        yield chosen, {name: torch.from_numpy(array[chosen]) for name, array in data.inputs.items()}


def _call(module: torch.nn.Module, inputs: dict[str, torch.Tensor], names: list[str]) -> list[torch.Tensor]:
    from hone.runtimes.torch.calls import calling, named_tensors

    return list(named_tensors(calling(module, names).call(module, inputs)).values())


def _outputs(teacher: torch.nn.Module, data: Dataset, names: list[str], size: int) -> list[torch.Tensor]:
    """Return the teacher's outputs for every row."""
    import torch

    with torch.inference_mode():
        parts = [_call(teacher, inputs, names) for _, inputs in _batches(data, size, np.arange(data.rows))]
    return [torch.cat(part).clone() for part in zip(*parts, strict=True)]


def _loss(options: Options, context: PassContext) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    from torch.nn import functional

    kind: str = options.loss
    if kind == "auto":
        kind = stand_in(context.loaded.recipe.quality.metric).teaches
    heat = options.temperature
    if kind == "kl":
        return lambda got, wanted: (
            functional.kl_div(
                (got / heat).log_softmax(-1), (wanted / heat).log_softmax(-1), reduction="batchmean", log_target=True
            )
            * heat**2
        )
    if kind == "cosine":
        return lambda got, wanted: 1 - functional.cosine_similarity(got.flatten(1), wanted.flatten(1)).mean()
    return functional.mse_loss


def _train(
    student: torch.nn.Module,
    data: Dataset,
    targets: list[torch.Tensor],
    names: list[str],
    compare: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    options: Options,
    context: PassContext,
) -> tuple[float, float]:
    """Fit the student; return the mean loss of the first and of the last epoch."""
    import torch

    optimizer = torch.optim.AdamW(student.parameters(), options.learning_rate)
    steps = options.epochs * -(-data.rows // options.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.learning_rate, total_steps=steps)
    shuffle = np.random.default_rng(options.seed)
    student.train()
    means: list[float] = []
    for epoch in range(options.epochs):
        losses: list[float] = []
        for chosen, inputs in _batches(data, options.batch, shuffle.permutation(data.rows)):
            optimizer.zero_grad()
            answers = _student_call(student, inputs, names, targets)
            loss: Any = sum(compare(got, wanted[chosen]) for got, wanted in zip(answers, targets, strict=True))
            if not torch.isfinite(loss):
                raise PassError(
                    f"distill: the loss is {float(loss.detach())} in epoch {epoch + 1}; lower learning_rate"
                )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        means.append(float(np.mean(losses)))
        context.progress(f"epoch {epoch + 1} of {options.epochs}, loss {means[-1]:.4g}")
    return means[0], means[-1]


def _student_call(
    student: torch.nn.Module, inputs: dict[str, torch.Tensor], names: list[str], targets: list[torch.Tensor]
) -> list[torch.Tensor]:
    """Run the student on a batch.

    Raises:
        PassError: it fails on the teacher's inputs, or gives other shapes.
    """
    try:
        answers = _call(student, inputs, names)
    except Exception as error:
        raise PassError(f"distill: the student fails on the teacher's inputs: {one_line(error)}") from error
    got, wanted = [list(answer.shape[1:]) for answer in answers], [list(target.shape[1:]) for target in targets]
    if got != wanted:
        raise PassError(f"distill: the student gives rows of shape {got}, the teacher {wanted}")
    return answers
