"""Runs of `hone optimize` in processes of their own, and what their reports say side by side."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import yaml

from hone.errors import HoneError

HAND, AUTO = "hand", "auto"
HONE = "from hone.cli.main import main; main()"

ANSWERED = (0, 4)
"""Exit statuses of a run with a winner, and with one that the rows are too few to prove."""


def cold_run(recipe: Path, way: str, folder: Path, minutes: float | None) -> dict[str, Any]:
    """Optimize by a recipe, or by `variants: auto` in it, with an empty cache.

    Args:
        recipe: of an example.
        way: HAND or AUTO.
        folder: a new one, for the cache, the store and the report.
        minutes: time limit of the proof.

    Returns:
        The seconds that it took, those of processors, and the report.

    Raises:
        HoneError: it failed, or has no winner.
    """
    changed = written(recipe, folder, {"variants": "auto"} if way == AUTO else {})
    limit = [] if minutes is None else ["--minutes", f"{minutes:g}"]
    worked, started = _worked(), time.monotonic()
    report = _optimize(changed, folder, folder / "cache", limit)
    return {"seconds": time.monotonic() - started, "cpu_s": _worked() - worked, "report": report}


def beside(recipe: Path, reports: dict[str, dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Return the report of a run with the winners of others alone, in full; what is the same twice is there once.

    Args:
        recipe: of the example.
        reports: by way; the cache of its last run is in the folder.
        folder: of the runs.
    """
    chains = {way: chain_of(winner_of(report)) for way, report in reports.items()}
    variants = [{"name": way, "passes": chain} for way, chain in chains.items()]
    if chains[HAND] == chains[AUTO]:
        variants = variants[:1]
    both = folder / "both"
    changed = written(recipe, both, {"variants": variants})
    return _optimize(changed, both, folder / "auto-0" / "cache", ["--full"])


def written(recipe: Path, folder: Path, change: dict[str, Any]) -> Path:
    """Write a recipe with some fields changed, beside links to what stands beside the recipe."""
    work = folder / "recipe"
    work.mkdir(parents=True)
    for path in recipe.parent.iterdir():
        if path != recipe and path.name != "__pycache__":
            (work / path.name).symlink_to(path.resolve())
    content = {**yaml.safe_load(recipe.read_text()), **change}
    (work / recipe.name).write_text(yaml.safe_dump(content, sort_keys=False))
    return work / recipe.name


def _optimize(recipe: Path, folder: Path, cache: Path, options: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-c", HONE, "optimize", str(recipe), "--out", str(folder / "out")]
    variables = {**os.environ, "HONE_CACHE": str(cache)}
    done = subprocess.run(
        [*command, "--no-store", *options], env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode not in ANSWERED:
        said = [text for text in done.stdout.splitlines() if text.strip()]
        raise HoneError(f"hone optimize {recipe.name} ended with {done.returncode}: {said[-1] if said else ''}")
    found: dict[str, Any] = orjson.loads((folder / "out" / "report.json").read_bytes())
    return found


def _worked() -> float:
    """Return the processor seconds of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def winner_of(report: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of a report's winner, or of the safest where none is proven.

    Raises:
        HoneError: it has neither.
    """
    name = report["winner"] or report["safest"]
    found = next((variant for variant in report["variants"] if variant["name"] == name), None)
    if found is None:
        raise HoneError(f"{report['recipe']}: no variant meets the budget")
    return dict(found)


def chain_of(variant: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a variant's passes with all their options, as a recipe writes them."""
    return [{step["name"]: step["options"]} for step in variant["passes"]]


def compared(found: dict[str, list[dict[str, Any]]], both: dict[str, Any]) -> dict[str, Any]:
    """Return what a reader wants to know of both ways.

    Args:
        found: runs by way, as `cold_run` gives them.
        both: the report of both winners in the same rounds.
    """
    entry: dict[str, Any] = {}
    judged: dict[str, dict[str, float]] = {}
    for way, runs in found.items():
        winner = winner_of(runs[-1]["report"])
        here = next((one for one in both["variants"] if one["name"] == way), None)
        here = here or next(one for one in both["variants"] if one["name"] == HAND)  # the same chain
        judged[way] = _judged(both, here)
        entry[way] = {
            "seconds": statistics.median(run["seconds"] for run in runs),
            "cpu_s": statistics.median(run["cpu_s"] for run in runs),
            "winner": winner["name"], "proven": runs[-1]["report"]["winner"] is not None,
            "made": len(runs[-1]["report"]["variants"]) - 1, "passes": chain_of(winner),
            "loss": here["loss"], "loss_upper": here["loss_upper"], "p50_ms": judged[way]["p50"],
            "size_mb": here["size_mb"],
        }  # fmt: skip
    for name, key in (("seconds_ratio", "seconds"), ("cpu_ratio", "cpu_s")):
        ratios = [a[key] / h[key] for a, h in zip(found[AUTO], found[HAND], strict=True)]
        entry[name] = round(statistics.median(ratios), 3)
    auto, hand = judged[AUTO], judged[HAND]
    entry["latency_ratio"] = round(auto["p50"] / hand["p50"], 3)
    same = auto is hand or entry[AUTO]["passes"] == entry[HAND]["passes"]
    entry["latency_ratio_low"] = 1.0 if same else round(auto["p50_low"] / hand["p50_high"], 3)
    entry["latency_ratio_high"] = 1.0 if same else round(auto["p50_high"] / hand["p50_low"], 3)
    return entry


def _judged(report: dict[str, Any], variant: dict[str, Any]) -> dict[str, float]:
    """Return a variant's latency at the budget's conditions."""
    at = report["budget"]["at"]
    table = variant["latency_ms"][str(at["batch"])]
    found: dict[str, float] = table[str(at["threads"])] if str(at["threads"]) in table else next(iter(table.values()))
    return found
