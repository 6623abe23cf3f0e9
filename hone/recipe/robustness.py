"""The recipe's field `robustness`: which rows are disturbed, how, and how long that may take."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hone.recipe.model import Strict

Perturbation = Literal["noise", "missing", "replaced", "typos", "brightness", "contrast", "blur", "shift"]
Severity = Annotated[int, Field(ge=1, le=5)]


class RobustnessSpec(Strict):
    """Evaluation rows are disturbed, alike for the source and each variant, and both are judged on them."""

    perturbations: tuple[Perturbation, ...] = Field(
        (),
        description="Kinds; default: all that fit the inputs. Numbers: `noise` by their spread, `missing`. Whole "
        "numbers, such as token ids: `replaced` by others of the rows. Texts: `typos`. Images: `noise`, `brightness`, "
        "`contrast`, `blur`, `shift`.",
    )
    severities: tuple[Severity, ...] = Field(
        (1, 2, 3), min_length=1, description="From 1, hardly to be seen, to 5. Each kind is judged at each of them."
    )
    rows: int | None = Field(None, gt=0, description="Most evaluation rows that are disturbed; default: all.")
    seconds: float = Field(
        60.0,
        gt=0,
        allow_inf_nan=False,
        description="Longest that one model answers disturbed rows, and longest that its answers are judged. What is "
        "beyond is left out: the bounds are then of fewer rows.",
    )
