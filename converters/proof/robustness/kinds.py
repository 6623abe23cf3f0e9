"""Ways to disturb rows, each in five severities, after Hendrycks and Dietterich (Benchmarking neural network robustness
to common corruptions and perturbations, ICLR 2019).

What is done to images has the strengths of their CIFAR-10-C, scaled to the size of the image. What rows of numbers, ids
and texts suffer instead is measured by the rows themselves: no strength needs to be known of a feature.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .traits import Traits

WORD = re.compile(r"\w{3,}")


@dataclass(frozen=True)
class Kind:
    """One way to disturb rows.

    Attributes:
        strengths: of the severities 1 to 5.
        fits: tells whether an input can be disturbed so.
        apply: (rows of an input, its traits, strength, generator) to as many disturbed rows of the same shape.
    """

    strengths: tuple[float, float, float, float, float]
    fits: Callable[[Traits], bool]
    apply: Callable[[np.ndarray, Traits, float, np.random.Generator], np.ndarray]


def _noise(rows: np.ndarray, traits: Traits, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Add normal noise of a share of each feature's spread."""
    return traits.within(rows + strength * traits.spread * generator.standard_normal(rows.shape))


def _missing(rows: np.ndarray, traits: Traits, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Take values away: NaN where the model takes them, else the feature's median stands for them."""
    gone = generator.random(rows.shape) < strength
    filler = np.nan if traits.spec.allow_nan else traits.middle
    return np.where(gone, filler, rows)


def _replaced(rows: np.ndarray, traits: Traits, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Put others that the data holds in place of whole numbers; padding and what is in nearly every row stays."""
    hit = (generator.random(rows.shape) < strength) & ~np.isin(rows, traits.special)
    return np.where(hit, traits.others(rows.shape, generator), rows)


def _typos(rows: np.ndarray, _: Traits, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Swap two neighboring letters in a share of the words."""

    def mistyped(found: re.Match[str]) -> str:
        word = found.group()
        if generator.random() >= strength:
            return word
        place = int(generator.integers(len(word) - 1))
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]

    texts = [WORD.sub(mistyped, str(text)) for text in rows.reshape(-1)]
    return np.array(texts, dtype=object).reshape(rows.shape)


def _brightness(rows: np.ndarray, traits: Traits, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Make each image lighter or darker by a share of the range of its values."""
    sign = generator.choice([-1.0, 1.0], size=(len(rows), 1, 1, 1))
    return traits.within(rows + sign * strength * (traits.high - traits.low))


def _contrast(rows: np.ndarray, traits: Traits, strength: float, _: np.random.Generator) -> np.ndarray:
    """Bring all values nearer to the mean of their image."""
    mean = rows.mean(axis=traits.plane, keepdims=True, dtype=np.float64)
    return traits.within((rows - mean) * strength + mean)


def _blur(rows: np.ndarray, traits: Traits, strength: float, _: np.random.Generator) -> np.ndarray:
    """Smooth by a normal curve of so many pixels of an image of 32."""
    deviation = strength * max(1.0, traits.side / 32)
    reach = max(1, round(3 * deviation))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    smooth = rows.astype(np.float64)
    for axis in traits.plane:
        padded = _padded(smooth, axis, reach)
        size = smooth.shape[axis]
        parts = (weight * _cut(padded, axis, start, size) for start, weight in enumerate(weights / weights.sum()))
        smooth = np.sum(list(parts), axis=0)
    return traits.within(smooth)


def _shift(rows: np.ndarray, traits: Traits, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Move each image by so many pixels of 32, left or right and up or down; its border is drawn out."""
    reach = max(1, round(strength * traits.side / 32))
    moved = np.empty_like(rows)
    for number, steps in enumerate(generator.choice([-reach, reach], size=(len(rows), 2))):
        image = rows[number : number + 1]
        for axis, step in zip(traits.plane, steps, strict=True):
            image = _cut(_padded(image, axis, reach), axis, reach + int(step), image.shape[axis])
        moved[number] = image[0]
    return moved


def _padded(array: np.ndarray, axis: int, reach: int) -> np.ndarray:
    return np.pad(array, [(reach, reach) if place == axis else (0, 0) for place in range(array.ndim)], mode="edge")


def _cut(array: np.ndarray, axis: int, start: int, size: int) -> np.ndarray:
    return array[(slice(None),) * axis + (slice(start, start + size),)]


def _is_number(traits: Traits) -> bool:
    return traits.is_float or traits.is_image


KINDS: dict[str, Kind] = {
    "noise": Kind((0.05, 0.1, 0.2, 0.4, 0.8), _is_number, _noise),
    "missing": Kind((0.02, 0.05, 0.1, 0.2, 0.4), lambda traits: traits.is_float and not traits.is_image, _missing),
    "replaced": Kind((0.02, 0.05, 0.1, 0.15, 0.2), lambda traits: traits.is_choice, _replaced),
    "typos": Kind((0.05, 0.1, 0.2, 0.3, 0.4), lambda traits: traits.is_text, _typos),
    "brightness": Kind((0.05, 0.1, 0.15, 0.2, 0.3), lambda traits: traits.is_image, _brightness),
    "contrast": Kind((0.75, 0.5, 0.4, 0.3, 0.15), lambda traits: traits.is_image, _contrast),
    "blur": Kind((0.4, 0.6, 0.7, 0.8, 1.0), lambda traits: traits.is_image, _blur),
    "shift": Kind((1, 2, 3, 4, 5), lambda traits: traits.is_image, _shift),
}
"""In the order in which they are tried; the names are the recipe's."""
