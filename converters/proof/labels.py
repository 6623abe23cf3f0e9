"""Labels and class outputs in one form, to be compared as values: true, 1, 1.0 and "1" are the same class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hone.errors import RecipeError

WORDS = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True)
class ClassReader:
    """How one output is read as classes. It is told from the source's output and the labels, and then holds for every
    variant, so that a broken variant is not read in a way of its own.

    Attributes:
        axis: of the class scores, None when the output holds one score, or the classes themselves.
        threshold: one score above it is class 1; None when the output holds the classes themselves.
        count: of classes with a score each; 2 for one score, 0 when only the values that occur are known.
    """

    axis: int | None
    threshold: float | None
    count: int

    def read(self, output: np.ndarray) -> np.ndarray:
        """Return the class of each row (or pixel, or token): numbers, or text."""
        if self.axis is not None:
            return output.argmax(axis=self.axis).astype(np.float64)
        if self.threshold is not None:
            return (output > self.threshold).astype(np.float64)
        return _values(output)


def pairs(output: np.ndarray, source: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (predicted, wanted) classes, flat and of one kind.

    Args:
        output: of a variant: class scores with the classes on axis 1 or last, one score a row, or classes.
        source: the same output of the source model; it decides how both are read.
        labels: class numbers (of any dtype), names, or one-hot rows.

    Raises:
        RecipeError: shapes or kinds can't be matched, or a label is none of the classes.
    """
    if output.shape != source.shape:
        raise RecipeError(f"quality: the output has shape {list(output.shape)}, the source's {list(source.shape)}")
    if output.dtype.kind == "f" and np.isnan(output).any():
        raise RecipeError(f"quality: the output holds NaN in {int(np.isnan(output).sum())} of {output.size} places")
    labels = _one_number(labels, source)
    reader = _reader(source, labels)
    wanted = _values(labels).reshape(-1)
    predicted, expected = reader.read(output).reshape(-1), reader.read(source).reshape(-1)
    if wanted.dtype.kind != expected.dtype.kind or _are_other_spellings(wanted, expected):
        wanted, expected, predicted = _same_kind(wanted, expected, predicted)
    _check_labels(wanted, expected, reader.count)
    return predicted, wanted


def class_ids(output: np.ndarray) -> np.ndarray:
    """Return the class of each row of an output alone, for comparing two models where there are no labels: whole
    numbers and text are classes, one score is cut, several scores go to the largest on the last axis."""
    single = output.ndim == 1 or output.shape[-1] == 1
    if output.dtype.kind in "biuUOS":
        return _values(output).reshape(-1)
    reader = ClassReader(None, _threshold(output), 2) if single else ClassReader(output.ndim - 1, None, 0)
    return reader.read(output).reshape(-1)


def _reader(source: np.ndarray, labels: np.ndarray) -> ClassReader:
    """Find out where the classes are in the source's output; labels have one value for each answer."""
    if source.dtype.kind in "biuUOS":
        if _bare(source.shape) != _bare(labels.shape):
            raise _mismatch(source, labels)
        return ClassReader(None, None, 0)
    if _bare(source.shape) == _bare(labels.shape):
        return ClassReader(None, _threshold(source), 2)
    fitting = {
        axis
        for axis in (1, source.ndim - 1)
        if source.ndim > 1 and _bare(source.shape[:axis] + source.shape[axis + 1 :]) == _bare(labels.shape)
    }
    if not fitting:
        raise _mismatch(source, labels)
    if len(fitting) > 1:
        raise RecipeError(
            f"quality: the output has shape {list(source.shape)} and labels {list(labels.shape)}: the classes may be "
            "on axis 1 or on the last; write a metric of your own, 'module:function'"
        )
    (axis,) = fitting
    return ClassReader(axis, None, source.shape[axis])


def _one_number(labels: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Return one-hot labels as class numbers, others as they are."""
    scores = source.dtype.kind not in "biuUOS"
    if labels.ndim < 2 or labels.dtype.kind not in "biuf" or (scores and labels.shape != source.shape):
        return labels
    for axis in dict.fromkeys((1, labels.ndim - 1)):
        if labels.shape[axis] > 1 and np.isin(labels, (0, 1)).all() and (labels.sum(axis=axis) == 1).all():
            classes: np.ndarray = labels.argmax(axis=axis)
            if scores or _bare(classes.shape) == _bare(source.shape):
                return classes
    return labels


def _threshold(scores: np.ndarray) -> float:
    """A probability is cut at a half, another score at zero."""
    return 0.5 if scores.min(initial=0) >= 0 and scores.max(initial=0) <= 1 else 0.0


def _values(array: np.ndarray) -> np.ndarray:
    """Return classes as float64 where they are numbers, as text where they are not."""
    if array.dtype.kind in "biu":
        return array.astype(np.float64)
    if array.dtype.kind == "f":
        _check_whole(array)
        return array.astype(np.float64)
    return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array.astype(str)


def _check_whole(labels: np.ndarray) -> None:
    bad = ~np.isfinite(labels) | (labels != np.floor(labels))
    if bad.any():
        raise RecipeError(
            f"quality: labels are classes, but {int(bad.sum())} of {labels.size} are no whole numbers, such as "
            f"{labels[bad].reshape(-1)[0]:g}; clean the data, or use a metric of values (docs/recipe.md has them)"
        )


def _same_kind(
    wanted: np.ndarray, expected: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read text as numbers where one side has numbers."""
    numbers = [array if array.dtype.kind == "f" else _parsed(array) for array in (wanted, expected, predicted)]
    if numbers[0] is None or numbers[1] is None or numbers[2] is None:
        sides = [("labels", wanted), ("the model's classes", expected)]
        (one, text), (other, number) = sides if wanted.dtype.kind == "U" else sides[::-1]
        raise RecipeError(
            f"quality: {one} are text ({shown(text)}), {other} are numbers ({shown(number)}); "
            "give labels as the model gives its classes"
        )
    return numbers[0], numbers[1], numbers[2]


def _are_other_spellings(wanted: np.ndarray, expected: np.ndarray) -> bool:
    """True for texts of numbers of which none are equal, such as "1.0" and "1"."""
    if wanted.dtype.kind != "U" or np.isin(wanted, expected).any():
        return False
    return _parsed(wanted) is not None and _parsed(expected) is not None


def _parsed(text: np.ndarray) -> np.ndarray | None:
    """Return text as numbers; None when a value is none."""
    names, places = np.unique(text, return_inverse=True)
    try:
        values = [WORDS.get(str(name).strip().lower()) for name in names]
        numbers = [float(str(name)) if value is None else value for name, value in zip(names, values, strict=True)]
    except ValueError:
        return None
    found = np.asarray(numbers, dtype=np.float64)
    return found[places.reshape(text.shape)] if np.isfinite(found).all() else None


def _check_labels(wanted: np.ndarray, expected: np.ndarray, count: int) -> None:
    """A label that is no class at all could never be predicted: the metric would be too low for all alike."""
    if count:
        outside = np.unique(wanted[(wanted < 0) | (wanted >= count)])
        if outside.size:
            raise RecipeError(
                f"quality: labels hold {shown(outside)}, the model's classes are 0 to {count - 1}; "
                "give class numbers, and leave out rows without a class"
            )
        return
    if not np.isin(wanted, expected).any():
        raise RecipeError(
            f"quality: no label ({shown(wanted)}) is ever predicted; the model gives {shown(expected)}; "
            "give labels as the model gives its classes"
        )


def shown(values: np.ndarray) -> str:
    """The first few values, for a message."""
    found = np.unique(values)
    texts = [f"{value:g}" if found.dtype.kind == "f" else f"'{value}'" for value in found[:3]]
    return ", ".join(texts) + (", …" if found.size > 3 else "")


def _bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without axes of one, but for the rows."""
    return shape[:1] + tuple(size for size in shape[1:] if size != 1)


def _mismatch(source: np.ndarray, labels: np.ndarray) -> RecipeError:
    shapes = []
    if source.ndim > 1 and source.dtype.kind not in "biuUOS":
        first, last = source.shape[:1] + source.shape[2:], source.shape[:-1]
        shapes = [f"{list(shape)}" for shape in dict.fromkeys((first, last))]
    wanted = " or ".join([*shapes, f"{list(source.shape)}" + (" (one-hot)" if shapes else "")])
    return RecipeError(
        f"quality: the output has shape {list(source.shape)}, so labels must have {wanted}; they have "
        f"{list(labels.shape)}" + (", not one-hot" if labels.shape == source.shape else "")
    )
