"""The turns of a comparison: one service is loaded at a time, A twice in each turn, in orders that change.

Two services on one host are disturbed by the same things, such as a neighbor or a warm processor, so a turn is compared
with itself only; and A is compared with A, so that a run says how well it measures.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Protocol

from hone.describe.revision import made_by
from hone.errors import HoneError
from hone.evidence.turns import FEWEST, against_itself, against_other, outcome
from hone.files import atomic_write, check_writable
from hone.hardware import host

from ..load.run import calls_for, run_load
from ..load.target import Target
from ..measures import measure
from ..scenarios import Scenario
from ..usage import listeners, watched
from .records import FIGURES, Comparison, Ratio, Side, Turn

SIDES = ("a", "b", "control")
ORDERS = tuple(permutations(SIDES))
MOST_ERRORS = 0.01
"""A service that fails is fast: nothing is said of times where more requests than this share failed."""


class Measure(Protocol):
    """Loads a side for a moment."""

    def __call__(self, side: str, turn: int) -> dict[str, float]:
        """Return its figures.

        Raises:
            HoneError: it fails, or is gone.
        """


class StoppedError(HoneError):
    """Ctrl-C."""

    exit_code = 130


def take_turns(measure_side: Measure, count: int, progress: Callable[[str], None] = lambda _: None) -> list[Turn]:
    """Return the figures of so many turns, or of those that were done when Ctrl-C came."""
    turns: list[Turn] = []
    try:
        for number in range(count):
            order = ORDERS[number % len(ORDERS)]
            found = {side: measure_side(side, number) for side in order}
            turns.append(Turn(order=list(order), **found))
            progress(f"turn {number + 1} of {count}: p50 A {found['a']['p50_ms']:.2f}, B {found['b']['p50_ms']:.2f} ms")
    except KeyboardInterrupt:
        if len(turns) < FEWEST:
            raise StoppedError(
                f"interrupted after {len(turns)} turns; nothing can be said from under {FEWEST}"
            ) from None
    return turns


def ratios(turns: list[Turn]) -> list[Ratio]:
    """Return how B's figures compare with A's, of those that every turn has."""
    found = []
    for figure in FIGURES:
        if not all(figure in getattr(turn, side) for turn in turns for side in SIDES):
            continue
        a, b, again = ([getattr(turn, side)[figure] for turn in turns] for side in SIDES)
        other, control = against_other(a, again, b), against_itself(a, again)
        found.append(
            Ratio(
                figure=figure,
                ratio=round(other.ratio, 5),
                low=round(other.low, 5),
                high=round(other.high, 5),
                smallest=round(other.smallest, 5),
                control=(round(control.low, 5), round(control.high, 5)),
                verdict=outcome(other, control, len(turns)),
            )
        )
    return found


def compare(
    a: Target,
    b: Target,
    scenario: Scenario,
    *,
    out: Path,
    turns: int,
    by: str = "p50_ms",
    command: str = "",
    progress: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Load two services in turns, and write `compare.json`.

    Args:
        a, b: the models; both are ready.
        scenario: of each load.
        out: file of the result.
        turns: how many.
        by: figure that the verdict is on.
        command: for the record.
        progress: told of each turn, in words.

    Raises:
        HoneError: they take different inputs, one fails or its processes can't be seen, or the file can't be written.
        StoppedError: Ctrl-C, before enough turns were done.
    """
    if turns < FEWEST:
        raise HoneError(f"--turns {turns}: nothing can be said from under {FEWEST}")
    require_comparable(a, b, by)
    check_writable(out.parent, f"{out.name} (--out)")
    loads = _Loads(a, b, scenario)
    done = take_turns(loads, turns, progress)
    comparison = Comparison(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        host=host(),
        command=command,
        made_by=made_by(),
        a=_side(a),
        b=_side(b),
        scenario=scenario,
        by=by,
        interrupted=len(done) < turns,
        busy=loads.busy,
        turns=done,
        ratios=ratios(done),
    )
    atomic_write(out, comparison.model_dump_json(indent=2) + "\n")
    return comparison


def require_comparable(a: Target, b: Target, by: str) -> None:
    """Raise HoneError for services that take different inputs, or whose work can't be seen where that is compared."""
    if a.signature.inputs != b.signature.inputs:
        raise HoneError(f"{a.tag} and {b.tag} take different inputs: they can't be compared under the same load")
    for target in (a, b):
        if by == "cpu_ms" and not listeners(target.url):
            raise HoneError(f"--by cpu: no processes of {target.url} are seen on this host; choose another --by")


def _side(target: Target) -> Side:
    return Side(model=target.tag, digest=target.digest, url=target.url)


class _Loads:
    """Loads two services.

    Args:
        a, b: the models.
        scenario: of each load; the arrivals of a turn are the same for all of it.
    """

    def __init__(self, a: Target, b: Target, scenario: Scenario) -> None:
        self._targets = {"a": a, "b": b, "control": a}
        self._calls = {side: calls_for(target, scenario.rows) for side, target in self._targets.items()}
        self._scenario = scenario
        self.busy = 0

    def __call__(self, side: str, turn: int) -> dict[str, float]:
        target = self._targets[side]
        scenario = self._scenario.model_copy(update={"seed": self._scenario.seed + turn})
        with watched(listeners(target.url)) as usage:
            sent = run_load(target, scenario, self._calls[side])
        found = measure(sent, scenario)
        if found["errors"] > MOST_ERRORS * found["requests"]:
            share = found["errors"] / found["requests"]
            why = next(iter(found["errors_by_kind"]))
            raise HoneError(f"{target.url}: {share:.0%} of the requests to {target.tag} failed in a turn: {why}")
        self.busy += bool(found["generator"].void)
        figures = {name: found[name] for name in ("p50_ms", "p95_ms", "p99_ms")}
        cpu = {"cpu_ms": 1e3 * usage["cpu_s"] / len(sent.intended)} if usage.get("cpu_s") else {}
        return {**figures, "s_per_request": 1 / found["rate"], **cpu}
