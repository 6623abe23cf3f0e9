"""Which of two services works more for a request: a comparison at once, from its windows to `compare.json`.

Two processes of the same service differ by some percent for as long as they live, by where their memory lies. So stored
models are started anew round by round, and a round is one figure.
"""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from pydantic import Field

from hone.describe.revision import made_by
from hone.errors import HoneError
from hone.evidence.bounds import MATERIAL
from hone.evidence.turns import FEWEST, Outcome, Paired, paired
from hone.files import atomic_write, check_writable
from hone.hardware import host
from hone.records import Record

from ..load.run import PROBE, calls_for, run_load
from ..load.target import Target
from ..measures import measure
from ..scenarios import Scenario
from .at_once import Window, windows
from .records import Side
from .turns import StoppedError, require_comparable

ROUND_S = 26.0
"""Of load in a round; two or three of them pass before and after its windows."""

SHORTEST_S = 10.0

FEWEST_ROUNDS = 4

NEGLIGIBLE = 0.005
"""A smaller difference is none: a few rounds are not so normal as Student's t takes them to be."""

SHARE = 0.2
"""Of what one service reaches alone that each gets: services and generator have room beside each other."""


class Both(Record):
    """A window."""

    requests: tuple[int, int] = Field(description="Answered by A and by B.")
    cpu_ms: tuple[float, float] = Field(description="That their processes worked for a request.")


class Round(Record):
    """Two processes beside each other, from their start to their end."""

    ratio: float = Field(description="B's work for a request over A's: geometric mean over the windows.")
    windows: list[Both]


class AtOnce(Record):
    """A comparison of two services that were loaded at once."""

    schema_version: Literal[1] = 1
    kind: Literal["comparison-at-once"] = "comparison-at-once"
    created: str
    host: dict[str, Any]
    command: str = Field("", description="What compared them.")
    made_by: str = Field("", description="Version and commit of Hone.")
    a: Side
    b: Side
    scenario: Scenario
    interrupted: bool = False
    rounds: list[Round] = Field(description="One, where the services were running already.")
    ratio: float = Field(description="B's work for a request over A's: geometric mean.")
    low: float = Field(description="Of its interval at 99 % confidence: Student's t on logarithms, by round.")
    high: float
    smallest: float = Field(description="Share by which they must differ to be told apart nine times in ten.")
    verdict: Outcome

    def summary(self) -> str:
        """Return the result in a few lines, for the terminal."""
        seen = f"cpu {self.ratio - 1:+.1%}, {self.low - 1:+.1%} to {self.high - 1:+.1%}"
        count = sum(len(one.windows) for one in self.rounds)
        said = f"B is {self.verdict}: {seen}"
        if self.verdict == "can't tell":
            said = f"can't tell: {seen}; a difference under {self.smallest:.1%} would not be seen"
        return (
            f"A {self.a.model} at {self.a.url}, B {self.b.model} at {self.b.url}: at once, {len(self.rounds)} rounds, "
            f"{count} windows\n{said}"
        )


Pair = AbstractContextManager[tuple[Target, Target]]


def verdict_of(rounds: Sequence[Sequence[float]]) -> tuple[Paired, Outcome]:
    """Return what the logarithms of ratios, by round and window, say of B's work over A's.

    Two processes of one service differ, too, by where their memory lies: by MATERIAL at most, as a rule. Several rounds
    have several processes, and their spread shows it. Of one round only a difference beyond MATERIAL is believed.

    Raises:
        ValueError: fewer than two values.
    """
    one = len(rounds) == 1
    found = paired(rounds[0]) if one else paired([float(np.mean(logs)) for logs in rounds])
    least = math.log1p(MATERIAL if one else NEGLIGIBLE)
    if not one and len(rounds) < FEWEST_ROUNDS:
        return found, "can't tell"
    if math.log(found.low) > least:
        return found, "slower"
    return found, "faster" if math.log(found.high) < -least else "can't tell"


@dataclass(frozen=True)
class Effort:
    """What a comparison may take.

    Attributes:
        minutes: in all.
        rows: in each request.
        rate: that each service gets; None: a share of what A reaches.
        anew: both are started anew each round; else there is one round, as long as the time.
    """

    minutes: float
    rows: int = 1
    rate: float | None = None
    anew: bool = True


def compare_at_once(
    start: Callable[[int], Pair], effort: Effort, *, out: Path | None = None, command: str = "",
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[AtOnce, Path]:  # fmt: skip
    """Load two services at once, and write what was found; return it, and where it is.

    Args:
        start: gives both, on this host and ready, by the number of the round; they are stopped afterwards.
        effort: what it may take.
        out: file of the result; None: out/NAME/compare.json.
        command: for the record.
        progress: told what is known, in words.

    Raises:
        HoneError: they take different inputs, one fails or its processes can't be seen, or the file can't be written.
        StoppedError: Ctrl-C, before there was enough.
    """
    end = time.monotonic() + effort.minutes * 60
    done: list[list[Window]] = []
    interrupted, longest_s, rate = False, 0.0, effort.rate
    while not done or (effort.anew and time.monotonic() + longest_s < end and not interrupted):
        began = time.monotonic()
        with start(len(done)) as (a, b):
            require_comparable(a, b, "cpu_ms")
            file = out or Path("out") / a.name / "compare.json"
            check_writable(file.parent, f"{file.name} (--out)")
            rate = rate or _rate(a, effort.rows, progress)
            left_s = max(SHORTEST_S, end - time.monotonic())
            seconds = min(ROUND_S, left_s) if effort.anew else left_s
            load = Scenario(rate=rate, rows=effort.rows, duration_s=seconds, warm_up_s=0, seed=len(done))
            seen, interrupted = _round(a, b, load)
        if len(seen) >= FEWEST:
            done.append(seen)
            progress(f"round {len(done)}: B / A {math.exp(_mean(seen)):.3f}, {len(seen)} windows")
        elif not (done and interrupted):
            _fail(len(seen), interrupted)
        longest_s = max(longest_s, time.monotonic() - began)
    sides = [Side(model=target.tag, digest=target.digest, url=target.url) for target in (a, b)]
    comparison = AtOnce(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), host=host(), command=command,
        made_by=made_by(), a=sides[0], b=sides[1], scenario=load, interrupted=interrupted, **_found(done),
    )  # fmt: skip
    atomic_write(file, comparison.model_dump_json(indent=2) + "\n")
    return comparison, file


def _fail(count: int, interrupted: bool) -> NoReturn:
    if interrupted:
        raise StoppedError(f"interrupted after {count} windows; nothing can be said from under {FEWEST}")
    raise HoneError(f"only {count} windows had enough requests; give more --minutes or a higher --rate")


def _found(done: list[list[Window]]) -> dict[str, Any]:
    found, verdict = verdict_of([[one.log_ratio for one in seen] for seen in done])
    figures = {name: round(getattr(found, name), 5) for name in ("ratio", "low", "high", "smallest")}
    return {**figures, "verdict": verdict, "rounds": [_record(seen) for seen in done]}


def _round(a: Target, b: Target, load: Scenario) -> tuple[list[Window], bool]:
    """Return the windows of a round, and whether Ctrl-C ended it."""
    seen: list[Window] = []
    try:
        for window in windows(a, b, load):
            seen.append(window)
    except KeyboardInterrupt:
        return seen, True
    return seen, False


def _mean(seen: list[Window]) -> float:
    return float(np.mean([one.log_ratio for one in seen]))


def _record(seen: list[Window]) -> Round:
    both = [Both(requests=one.requests, cpu_ms=one.cpu_ms) for one in seen]
    return Round(ratio=round(math.exp(_mean(seen)), 5), windows=both)


def _rate(target: Target, rows: int, progress: Callable[[str], None]) -> float:
    """Return a rate that two services can be given at once: SHARE of what a closed loop reaches in a moment.

    Raises:
        HoneError: the service gives no good answer.
    """
    probe = PROBE.model_copy(update={"rows": rows})
    reached = measure(run_load(target, probe, calls_for(target, rows)), probe)["rate"]
    if not reached:
        raise HoneError(f"{target.url}: the probe got no good answer; give --rate, or look into the service's log")
    progress(f"{reached:,.0f} requests/s reached by one; each gets {SHARE:.0%} of them")
    return round(SHARE * reached, 1)
