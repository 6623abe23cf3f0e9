"""What each benchmark's record says: a sentence of its few figures, its spread, and tables.

A record is read as the JSON that its command writes.
"""

from __future__ import annotations

import statistics
from typing import Any

import orjson

from hone.capacity import Capacity
from hone.errors import HoneError

from ..compare.records import Comparison
from .records import Findings, Table

Entry = dict[str, Any]
LOCUST = "Locust's FastHttpUser"
SINGLE = "binary-1"
BUSY = 32
"""Connections at which the sentence on serving tells the rate and the tail."""


def serving(record: Entry) -> Findings:
    """Return what `serving.json` says; raises HoneError when no server was measured."""
    left_out = [f"{entry['server']} ({entry['model']}): {entry['error']}" for entry in record["not_run"]]
    runs = record["runs"]
    if not any(run["server"] == "hone" for run in runs):
        raise HoneError(f"Hone was not measured: {(left_out or ['no run'])[0]}")
    return Findings(
        result=_beside_hone(runs),
        spread=f"medians of {record['rounds']} rounds of {record['seconds']:g} s, in brackets their quartiles"
        if record["rounds"] > 1
        else f"one round of {record['seconds']:g} s",
        tables=[_served(runs, *key) for key in dict.fromkeys((run["model"], run["payload"]) for run in runs)],
        left_out=left_out,
    )


def _beside_hone(runs: list[Entry]) -> str:
    """Return the rate of single rows, and how often it is that of the others; then the other payloads."""
    single = _by_server(runs, "digits", SINGLE)
    ours = single.get("hone", {})
    parts = []
    if BUSY in ours:
        rate, tail = (f"{_figure(ours[BUSY], name)}{_between(ours[BUSY], name)}" for name in ("rps", "p99_ms"))
        parts.append(f"single binary rows of digits over {BUSY} connections: {rate} requests/s, p99 {tail} ms")
    connections = sorted(ours)
    times = []
    for server, theirs in single.items():
        if server not in ("hone", "in-process") and set(connections) <= set(theirs):
            each = " · ".join(_times(ours[at], theirs[at]) for at in connections)
            times.append(f"{each} times {server}")
    if times:
        parts.append(f"over {' · '.join(map(str, connections))} connections {', '.join(times)}")
    parts += _others(runs)
    return "; ".join(parts) or "no single rows of digits were asked for"


def _others(runs: list[Entry]) -> list[str]:
    """Return how requests of many rows stand to ONNX Runtime without a server, and texts to the other servers."""
    many = _by_server(runs, "digits", "binary-64")
    parts = [
        f"requests of 64 rows reach {run['rows_per_s'] / many['in-process'][at]['rows_per_s']:.1f} of ONNX Runtime's "
        "rows/s without a server"
        for at, run in many.get("hone", {}).items()
        if at in many.get("in-process", {})
    ]
    texts = _by_server(runs, "minilm", "mixed-1")
    for at, run in texts.get("hone", {}).items():
        others = {name: theirs[at] for name, theirs in texts.items() if name != "hone" and at in theirs}
        times = [f"{_times(run, theirs)} times {name}" for name, theirs in others.items()]
        parts += [f"texts of several lengths (MiniLM): {', '.join(times)}"] if times else []
    return parts


def _times(run: Entry, other: Entry) -> str:
    return f"{run['rps'] / other['rps']:.1f}"


def _by_server(runs: list[Entry], model: str, payload: str) -> dict[str, dict[int, Entry]]:
    """Return a payload's runs that were answered without an error, by server and connections."""
    found: dict[str, dict[int, Entry]] = {}
    for run in runs:
        if (run["model"], run["payload"]) == (model, payload) and run["rps"] and not run["errors"]:
            found.setdefault(run["server"], {})[run["connections"]] = run
    return found


def _served(runs: list[Entry], model: str, payload: str) -> Table:
    rows = [
        [
            run["server"], str(run["connections"]),
            *(f"{_figure(run, name)}{_between(run, name)}" for name in ("rps", "p50_ms", "p99_ms")), str(run["errors"]),
        ]
        for run in sorted(runs, key=lambda run: (run["connections"], -run["rps"]))
        if (run["model"], run["payload"]) == (model, payload)
    ]  # fmt: skip
    return Table(
        title=f"{model}, {payload}",
        columns=["server", "connections", "requests/s", "p50 ms", "p99 ms", "errors"],
        rows=rows,
    )


def _figure(run: Entry, name: str) -> str:
    return f"{run[name]:,.0f}" if name == "rps" else f"{run[name]:.2f}"


def _between(run: Entry, name: str) -> str:
    """Return quartiles in brackets; nothing where there was one round, or a record has none."""
    low, high = run.get("quartiles", {}).get(name, (None, None))
    if low is None or run["rounds"] < 2:
        return ""
    return f" ({_figure({name: low}, name)} to {_figure({name: high}, name)})"


def converters(record: Entry) -> Findings:
    """Return what `converters.json` says; raises HoneError when no example was run."""
    left_out = [f"{entry['name']}: {entry['error']}" for entry in record["not_run"]]
    left_out += [f"{peer['name']} on {peer['model']}: {peer['error']}" for peer in record["peers"] if peer.get("error")]
    models = record["models"]
    if not models:
        raise HoneError(f"no example was run: {(left_out or ['none was named'])[0]}")
    chosen = [(model, model["chosen"]) for model in models if model["chosen"]]
    gains = [entry["speedup_vs_source"] for _, entry in chosen if entry["speedup_vs_source"]]
    losses = [entry["quality_loss_pct"] for _, entry in chosen if entry["quality_loss_pct"] is not None]
    result = f"{len(chosen)} of {len(models)} examples have a variant within the budget"
    if gains:
        middle = statistics.median(gains)
        result += f": {min(gains):.1f} to {max(gains):.1f} times the source's speed, {middle:.1f} in the middle"
    if losses:
        result += f", at most {max(losses):.2f} % of its quality lost"
    return Findings(
        result=result,
        spread="medians of interleaved rounds; in brackets what the median of single calls is between, by the rounds",
        tables=[_converted(model) for model in models],
        left_out=left_out,
    )


def _converted(model: Entry) -> Table:
    rows = []
    for entry in [*model["variants"], *model["peers"]]:
        name = entry.get("variant") or f"{entry['name']} (another tool)"
        name += " (chosen)" if entry.get("variant") and entry["variant"] == model["winner"] else ""
        if "rows_per_s" not in entry:
            rows.append([name, "", "", "", "", entry.get("reason") or entry.get("error", "")])
            continue
        rates = ", ".join(f"{batch}: {rate:,.0f}" for batch, rate in entry["rows_per_s"].items())
        lost = "" if entry["quality_loss_pct"] is None else f"{entry['quality_loss_pct']:.2f}"
        gain, size = f"{entry['speedup_vs_source'] or 0:.2f}", f"{entry['size_ratio'] or 0:.2f}"
        rows.append([name, gain, _p50(entry), lost, size, rates])
    return Table(
        title=f"{model['name']} ({model['source']}, {model['metric']})",
        columns=["variant", "times the source", "p50 ms", "% of quality lost", "size", "rows/s by batch"],
        rows=rows,
    )


def _p50(entry: Entry) -> str:
    middle, low, high = entry.get("p50_ms", (None, None, None))
    if middle is None:
        return ""
    return f"{middle:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else "")


def capacity(record: Entry) -> Findings:
    """Return what `capacity.json` says."""
    found = Capacity.model_validate_json(orjson.dumps(record))
    at, bound = found.at_capacity, found.rate_lower_95
    proven = "no rate is proven" if bound is None else f"at least {bound:,.0f} with 95 % confidence"
    trials = sorted([*found.search, *found.repeats], key=lambda trial: trial.rate)
    return Findings(
        result=f"{found.model}: {found.rate:,.0f} requests/s with {found.slo.words}, {proven}; "
        f"there p50 {at.p50_ms:.1f} ms, p99 {at.p99_ms:.1f} ms",
        spread=f"{len(found.repeats)} runs of {sum(t.duration_s for t in found.repeats):,.0f} s in all as proof, "
        f"{found.slo.percentile.removesuffix('_ms')} {found.spread:.0%} apart",
        tables=[
            Table(
                title="Trials",
                columns=["requests/s", "answered in time", "p50 ms", "p99 ms", "requests", "seconds", "verdict"],
                rows=[
                    [
                        f"{t.rate:,.1f}", "" if t.goodput is None else f"{t.goodput:,.1f}", f"{t.p50_ms:.2f}",
                        f"{t.p99_ms:.2f}", f"{t.requests:,}", f"{t.duration_s:.1f}", t.verdict or "",
                    ]
                    for t in trials
                ],
            )
        ],
        left_out=[found.open_question] if found.open_question else [],
    )  # fmt: skip


def compare(record: Entry) -> Findings:
    """Return what `compare.json` says."""
    found = Comparison.model_validate_json(orjson.dumps(record))
    rows = [
        [
            ratio.figure, f"{ratio.ratio:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}",
            f"{ratio.control[0]:.3f} to {ratio.control[1]:.3f}", f"{ratio.smallest:.1%}", ratio.verdict,
        ]
        for ratio in found.ratios
    ]  # fmt: skip
    return Findings(
        result=f"A {found.a.model}, B {found.b.model}, {found.scenario.words}: {found.summary().splitlines()[-1]}",
        spread=f"{len(found.turns)} turns of {found.scenario.duration_s:g} s a side; intervals at 99 % confidence",
        tables=[
            Table(
                title="B over A",
                columns=["figure", "ratio", "between", "A over A", "smallest difference seen", "B is"],
                rows=rows,
            )
        ],
    )


def soak(record: Entry) -> Findings:
    """Return what `soak.json` says."""
    memory, tail = record["memory"], record["steady"]
    quartiles = memory.get("rps_quartiles")
    spread = f"; {memory['parts']} parts at {memory['rps_median']:,.0f} requests/s ({quartiles[0]:,.0f} to " \
             f"{quartiles[1]:,.0f})" if quartiles else ""  # fmt: skip
    return Findings(
        result=f"{memory['requests']:,} requests, {memory['errors']} errors, {memory['growth_mib']:+.1f} MiB; then "
        f"{tail['rate']:,} requests/s for {tail['minutes']:g} min: p50 {tail['p50_ms']:.2f} ms, "
        f"p99 {tail['p99_ms']:.2f} ms, p99.9 {tail['p999_ms']:.2f} ms, {tail['errors']} errors",
        spread=f"every request of {tail['requests']:,} counts{spread}; a thread that only sleeps wakes "
        f"{tail['host_hiccup_p999_ms']:.2f} ms late at p99.9 here",
        tables=[
            Table(
                title="Memory of the workers",
                columns=["requests", "MiB"],
                rows=[[f"{mark['requests']:,}", f"{mark['mib']:.1f}"] for mark in memory["marks"]],
            )
        ],
    )


def generators(record: Entry) -> Findings:
    """Return what `generators.json` says."""
    found = record["generators"]
    rates = {name: entry["rate_to_wrk"] for name, entry in found.items()}
    sender = rates["sender"]
    result = f"the sender reaches {sender['median']:.2f} of wrk's rate over {record['connections']} connections"
    if LOCUST in found:
        result += f", {found['sender']['rate'] / found[LOCUST]['rate']:.1f} times that of Locust's own user"
    rows = [
        [
            name, f"{entry['rate']:,.0f}", _ratio(entry["rate_to_wrk"]), f"{entry['p99_ms']:.2f}",
            _ratio(entry["p99_to_wrk"]), "" if entry["cpu_share"] is None else f"{entry['cpu_share']:.0%}",
        ]
        for name, entry in found.items()
    ]  # fmt: skip
    late = [
        [
            f"{entry['rate']:,.0f}", f"{entry['late_p50_ms']:.3f}", f"{entry['late_p99_ms']:.3f}",
            f"{entry['late_share']:.2%}", f"{entry['sleeper_p99_ms']:.3f}",
        ]
        for entry in record.get("lateness", [])
    ]  # fmt: skip
    columns = ["generator", "requests/s", "of wrk's", "p99 ms", "of wrk's", "of a core"]
    lateness = ["requests/s", "late at p50, ms", "late at p99, ms", "over 1 ms", "a sleeper at p99, ms"]
    return Findings(
        result=result,
        spread=f"median of the ratios of {record['rounds']} rounds, in brackets their quartiles: {_ratio(sender)}",
        tables=[
            Table(title="Closed loop", columns=columns, rows=rows),
            *([Table(title="Open loop: how late the sender is", columns=lateness, rows=late)] if late else []),
        ],
    )


def _ratio(found: Entry) -> str:
    if "low" not in found:
        return f"{found['median']:.2f}"
    return f"{found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})"
