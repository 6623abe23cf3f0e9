"""Bounds of figures that are drawn again: right as often as they say, paired, and the same each time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hone.evidence.resampling import Draws, draw, mean_of

Draw = Callable[[np.random.Generator], np.ndarray]


@pytest.mark.parametrize(
    ("values", "true"),
    [(lambda g: g.normal(size=60), 0.0), (lambda g: g.exponential(size=60), 1.0), (lambda g: g.random(60) ** 4, 0.2)],
)
def test_a_bound_is_exceeded_about_as_often_as_stated(values: Draw, true: float) -> None:
    generator = np.random.default_rng(0)
    bounds = [draw(mean_of(values(generator)), 60, 300).bounds() for _ in range(200)]
    assert np.mean([one.upper(0.95) < true for one in bounds]) < 0.095
    assert np.mean([one.lower(0.95) > true for one in bounds]) < 0.095
    assert np.mean([one.upper(0.95) < true for one in bounds]) > 0.01


def test_a_difference_is_drawn_on_the_same_rows() -> None:
    """What both share cancels: the bound is that of the difference row by row."""
    generator = np.random.default_rng(0)
    common, apart = generator.normal(size=200) * 100, generator.normal(size=200)
    difference = draw(mean_of(common + apart), 200).less(draw(mean_of(common), 200)).bounds()
    own = draw(mean_of(apart), 200).bounds()
    assert difference.upper(0.95) == pytest.approx(own.upper(0.95))
    assert difference.upper(0.95) - difference.lower(0.95) < 0.5


def test_bounds_are_the_same_each_time() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert draw(mean_of(values), 50).bounds().upper(0.9) == draw(mean_of(values), 50).bounds().upper(0.9)


def test_draws_without_a_figure_are_left_out_and_too_many_of_them_are_an_error() -> None:
    values = np.arange(40.0)

    def needs(row: int) -> Callable[[np.ndarray], float]:
        return lambda rows: float(values[rows].mean()) if (rows >= row).any() else float("nan")

    assert draw(needs(30), 40).bounds().failed == 0
    with pytest.raises(ValueError, match="can't be computed on"):
        draw(needs(39), 40).bounds()


def test_rows_that_hardly_make_a_difference_are_counted() -> None:
    def telling(count: int) -> float:
        return draw(mean_of(np.arange(500.0) < count), 500).bounds().telling

    assert telling(0) == 0
    assert telling(1) == pytest.approx(1, abs=0.3)
    assert telling(200) > 2


def test_rows_to_decide_grow_with_the_square_of_the_error_over_the_gap() -> None:
    figure = draw(mean_of(np.random.default_rng(0).normal(size=400)), 400).bounds()
    near, far = (figure.rows_to_decide(figure.point + gap, 0.95) for gap in (0.1, 0.2))
    assert near is not None and far is not None
    assert near == pytest.approx(4 * far, rel=0.02) and near == pytest.approx(618, rel=0.2)
    assert figure.rows_to_decide(figure.point, 0.95) is None


def test_of_very_many_rows_fewer_are_drawn() -> None:
    drawn = draw(lambda rows: float(len(rows)), 200_000)
    assert isinstance(drawn, Draws) and len(drawn.drawn) == 400
