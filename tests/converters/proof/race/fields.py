"""Variants with times of their own, for races without processes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hone.artifact import Measurements, Quality
from hone.converters.proof.race.contest import Contest
from hone.converters.proof.race.timing import latency_of
from hone.converters.proof.verdicts.claims import Claim, Evidence, Fragility
from hone.converters.proof.verdicts.select import Candidate, select
from hone.evidence.pairs import Pairs
from hone.recipe import Recipe
from tests.models.sums import recipe

ROWS = 540


@dataclass(frozen=True)
class Runner:
    """A variant: its milliseconds by turn, and what else decides.

    Attributes:
        worse: rows that it alone gets wrong, of ROWS.
        joules: of each turn.
        fragile: as `worse`, of disturbed rows; None: they were not asked for.
    """

    times: Sequence[float]
    worse: int = 0
    size_mb: float = 1.0
    joules: float | None = None
    fragile: int | None = None

    @property
    def untimed(self) -> Measurements:
        drop = self.worse / ROWS
        quality = Quality(
            metric="accuracy", value=0.9 - drop, source=0.9, drop=drop, max_difference=0, mean_difference=0, rows=ROWS
        )
        return Measurements(quality=quality, latency=(), peak_rss_mb=50, load_ms=1, size_mb=self.size_mb, host={})

    @property
    def evidence(self) -> Evidence:
        return Evidence(Claim("accuracy", 0.02, Pairs(self.worse, 0, ROWS)))

    @property
    def disturbed(self) -> tuple[Fragility, ...]:
        assert self.fragile is not None, "nobody asks this one for disturbed rows"
        claim = Claim("accuracy under noise", 0.02, Pairs(self.fragile, 0, ROWS))
        return (Fragility("noise", 1, ROWS, 0.9, claim),)

    def used(self, turns: int) -> list[float | None]:
        return [self.joules] * turns

    def candidate(self, name: str, turns: int, evidence: Evidence, beaten: str = "") -> Candidate:
        latency = latency_of((1, 1), calls(self.times[:turns]), self.used(turns))
        measured = self.untimed.model_copy(update={"latency": (latency,)})
        return Candidate(name, measured, evidence, beaten=beaten)


def calls(times: Sequence[float]) -> list[list[int]]:
    """Return turns of one call each."""
    return [[round(time * 1e6)] for time in times]


def rules(objective: str = "latency", **budget: Any) -> Recipe:
    limits = {"quality_drop": 0.02, "at": {"batch": 1, "threads": 1}, **budget}
    return Recipe.model_validate(recipe(budget=limits, objective=objective))


@dataclass(frozen=True)
class Result:
    """How a race ended.

    Attributes:
        winner: None where nothing is proven.
        turns: of each variant.
        stopped: why, of those that were.
    """

    winner: str | None
    turns: dict[str, int]
    stopped: dict[str, str]


def raced(field: Mapping[str, Runner], recipe: Recipe, *, full: bool = False) -> Result:
    """Race variants as a proof does, turn by turn."""
    robust = any(runner.fragile is not None for runner in field.values())
    contest = Contest(
        recipe,
        lambda _: next(waiting).evidence,
        full=full,
        disturbed=(lambda name: field[name].disturbed) if robust else None,
    )
    waiting = iter(field.values())
    for name, runner in field.items():
        contest.enters(name, {}, runner.untimed)
    all_turns = len(next(iter(field.values())).times)
    turns, left, stopped = dict.fromkeys(field, all_turns), dict(field), {}
    for turn in range(1, all_turns + 1):
        rounds = {name: calls(runner.times[:turn]) for name, runner in left.items()}
        found = contest.stops(rounds, {name: runner.used(turn) for name, runner in left.items()})
        turns |= dict.fromkeys(found, turn)
        stopped |= found
        left = {name: runner for name, runner in left.items() if name not in found}
    rounds = {name: calls(runner.times) for name, runner in left.items()}
    back = contest.recalls(rounds, {name: runner.used(all_turns) for name, runner in left.items()})
    turns |= dict.fromkeys(back, all_turns)
    stopped = {name: why for name, why in stopped.items() if name not in back}
    candidates = [
        runner.candidate(
            name, turns[name], contest.evidence[name], stopped.get(name, "") if name in contest.beaten else ""
        )
        for name, runner in field.items()
    ]
    standings = select(candidates, recipe)
    best = next(name for name, standing in standings.items() if standing.rank == 0)
    return Result(best if standings[best].eligible else None, turns, stopped)


def recorded() -> dict[str, dict[str, Runner]]:
    """Return the turns of a whole proof of the digits example, on a busy host with two cores."""
    content = json.loads(Path(__file__).with_name("recorded.json").read_text())
    return {name: {key: Runner(**value) for key, value in field.items()} for name, field in content.items()}


def again(field: Mapping[str, Runner], generator: np.random.Generator) -> dict[str, Runner]:
    """Return a field with turns drawn anew; a turn of all variants stays one, with what disturbed them."""
    count = len(next(iter(field.values())).times)
    drawn = generator.integers(count, size=count)
    return {name: Runner([one.times[turn] for turn in drawn], one.worse, one.size_mb) for name, one in field.items()}
