"""Hone's drift detection beside other tools': `make bench-drift`, or `python -m benchmarks.drift`.

Months of real rows in which nothing moves say how often a tool calls by mistake; changes behind them say how many rows
it takes to find one. All look each hour, at the same rows. A threshold makes a tool quicker or quieter, so each of the
others is also judged at the threshold by which it is as quick as Hone, and at that by which it is as quiet: both are
found with the streams that they are judged by, which no user has.
"""

from __future__ import annotations

import datetime
import shlex
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import click
import orjson

from hone.errors import HoneError, did_you_mean, one_line
from hone.files import atomic_write
from hone.hardware import host

from ..peers.description import detectors
from . import streams
from .judge import Judged, at_alarms, at_delay, judge
from .report import to_markdown
from .tools import Looked, by_hone, by_peer


@click.command()
@click.option("--days", type=click.IntRange(2, 35), default=30, show_default=True, help="In which nothing moves.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Streams of each set.")
@click.option("--set", "names", multiple=True, help="A real set, such as fair. [default: all]")
@click.option("--peer", "peers", multiple=True, help="Another tool, such as nannyml. [default: all]")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/bench"), show_default=True)
@click.option("--peers", "root", type=click.Path(path_type=Path), default=Path("out/peers"), show_default=True)
def main(days: int, seeds: int, names: Sequence[str], peers: Sequence[str], out: Path, root: Path) -> None:
    """Let all look, write drift.json and drift.md."""
    chosen = _named("--set", [one.name for one in streams.sets()], names)
    others = _named("--peer", [peer.name for peer in detectors()], peers)
    made = [
        streams.make_stream(one, seed, days) for one in streams.sets() if one.name in chosen for seed in range(seeds)
    ]
    click.echo(f"{len(made)} streams of {days} days", err=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
        found, not_run = _looked(made, others, root.resolve())
    except HoneError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or out}: {error.strerror}") from error
    report = {
        "schema": 1,
        "kind": "drift",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "benchmarks.drift", *sys.argv[1:]]),
        "host": host(),
        "days": days,
        "seeds": seeds,
        "sets": [{"name": one.name, "part": one.about} for one in streams.sets() if one.name in chosen],
        "rows_an_hour": streams.RATE,
        "reference_rows": streams.REFERENCE,
        "tools": {peer.name: [*peer.requirements, peer.about.settings] for peer in detectors() if peer.name in others},
        "results": entries(found),
        "not_run": not_run,
    }
    atomic_write(out / "drift.json", orjson.dumps(report, option=orjson.OPT_INDENT_2))
    atomic_write(out / "drift.md", text := to_markdown(report))
    click.echo(text)


def _named(option: str, known: Sequence[str], wanted: Sequence[str]) -> Sequence[str]:
    for name in wanted:
        if name not in known:
            raise click.BadParameter(f"no '{name}'{did_you_mean(name, known)}", param_hint=option)
    return wanted or known


def _looked(
    made: list[streams.Stream], others: Sequence[str], root: Path
) -> tuple[dict[str, list[Looked]], list[dict[str, str]]]:
    """Return what each tool said of each stream, and which couldn't; the others look at once, Hone after them."""
    found: dict[str, list[Looked]] = {}
    not_run = []
    with ThreadPoolExecutor() as pool:
        asked = [peer for peer in detectors() if peer.name in others]
        waiting = {peer.name: pool.submit(partial(by_peer, peer, root, made)) for peer in asked}
        for name, answer in waiting.items():
            try:
                found[name] = answer.result()
            except (HoneError, OSError) as error:
                not_run.append({"name": name, "error": one_line(error)})
    return {"hone": [by_hone(stream) for stream in made], **found}, not_run


def entries(found: dict[str, list[Looked]]) -> list[dict[str, Any]]:
    """Return how each tool does as it is shipped, and the others also where they are as quick and as quiet as Hone."""
    made: list[dict[str, Any]] = []
    ours: Judged | None = None
    for tool, looked in found.items():
        seconds = sorted(one.seconds for one in looked)[len(looked) // 2]
        for way in looked[0].scores:
            scores = [one.scores[way] for one in looked]
            shipped = judge(scores)
            settings: dict[str, Judged | None] = {"as shipped": shipped}
            if ours is None:
                ours = shipped
            else:
                settings["as quick"] = at_delay(scores, ours.delays["all"])
                settings["as quiet"] = at_alarms(scores, ours.calling)
            for setting, one in settings.items():
                about = {"tool": tool, "way": way, "setting": setting, "seconds_a_look": seconds}
                made.append({**about, **(one.as_json() if one else {"error": "at no threshold"})})
    return made


if __name__ == "__main__":
    main()
