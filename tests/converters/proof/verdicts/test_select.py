from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hone.artifact import Latency, Measurements, Quality
from hone.converters.proof.verdicts.claims import Claim, Evidence
from hone.converters.proof.verdicts.select import Candidate, select
from hone.evidence.pairs import Pairs
from hone.recipe import Recipe
from tests.models.sums import recipe

ROWS = 10_000


def candidate(
    name: str,
    *,
    drop: float = 0.0,
    p50: float = 1.0,
    size: float = 1.0,
    rss: float = 50.0,
    steps: int = 2,
    rounds: tuple[float, ...] = (),
) -> Candidate:
    latency = Latency(
        batch=1, threads=1, p50=p50, p95=2 * p50, p99=3 * p50, mean=p50, rows_per_s=1000 / p50, calls=9, rounds=rounds,
        joules_per_1000_rows=4.0,
    )  # fmt: skip
    quality = Quality(
        metric="accuracy", value=0.9 - drop, source=0.9, drop=drop, max_difference=0, mean_difference=0, rows=10
    )
    measured = Measurements(quality=quality, latency=(latency,), peak_rss_mb=rss, load_ms=1, size_mb=size, host={})
    evidence = Evidence(Claim("accuracy", 0.01, Pairs(max(0, round(drop * ROWS)), max(0, round(-drop * ROWS)), ROWS)))
    return Candidate(name, measured, None if name == "torch" else evidence, name != "torch", steps)


def rules(**changes: Any) -> Recipe:
    budget = {"quality_drop": 0.01, "at": {"batch": 1, "threads": 1}, **changes.pop("budget", {})}
    return Recipe.model_validate(recipe(budget=budget, **changes))


def test_fastest_within_the_budget_wins_and_the_others_say_why() -> None:
    verdicts = select(
        [
            candidate("torch", p50=9),
            candidate("fast", p50=1),
            candidate("slow", p50=2),
            candidate("bad", drop=0.2, p50=0.1),
        ],
        rules(),
    )
    assert verdicts["fast"].rank == 0
    assert "best latency" in verdicts["fast"].reason
    assert verdicts["slow"].reason == "p50 2 ms, the winner's 1 ms"
    assert not verdicts["bad"].eligible
    assert "accuracy loses 0.2, between 0.19" in verdicts["bad"].reason


def test_source_never_wins() -> None:
    verdicts = select([candidate("torch", p50=0.1), candidate("onnx", p50=1)], rules())
    assert verdicts["onnx"].rank == 0


@pytest.mark.parametrize(("objective", "winner"), [("latency", "fast"), ("size", "small"), ("quality", "exact")])
def test_objective_decides(objective: str, winner: str) -> None:
    candidates = [
        candidate("torch"),
        candidate("fast", p50=0.1, drop=0.002),
        candidate("small", size=0.1, drop=0.001),
        candidate("exact", p50=3, size=3, drop=-0.01),
    ]
    verdicts = select(candidates, rules(objective=objective))
    assert next(name for name, verdict in verdicts.items() if verdict.rank == 0) == winner


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"p95_ms": 1.5}, "p95 latency 2 ms is over 1.5"),
        ({"size_mb": 0.5}, "size 1 MB"),
        ({"p50_ms": 0.5}, "p50 latency 1 ms is over 0.5"),
        ({"p99_ms": 2.5}, "p99 latency 3 ms"),
        ({"rows_per_s": 2000}, "1000 rows/s are fewer than 2000"),
        ({"load_ms": 0.5}, "load time 1 ms"),
        ({"peak_rss_mb": 10}, "peak memory"),
        ({"energy_j": 3.5}, "energy of 1,000 rows 4 J is over 3.5 J"),
    ],
)
def test_each_limit_is_enforced(limit: dict[str, float], words: str) -> None:
    verdict = select([candidate("torch"), candidate("onnx")], rules(budget=limit))["onnx"]
    assert not verdict.eligible
    assert words in verdict.reason


def test_what_is_proven_wins_over_what_is_faster_and_undecided() -> None:
    few = Evidence(Claim("accuracy", 0.01, Pairs(0, 0, 58)))
    standings = select(
        [candidate("torch"), candidate("proven", p50=3), replace(candidate("quick"), evidence=few)], rules()
    )
    assert (standings["proven"].rank, standings["proven"].verdict) == (0, "met")
    assert (standings["quick"].rank, standings["quick"].verdict, standings["quick"].eligible) == (1, "undecided", False)
    assert "accuracy loses 0, between -0.0" in standings["quick"].reason


def test_without_a_proof_the_safest_comes_first_however_slow() -> None:
    def few(name: str, worse: int, p50: float) -> Candidate:
        return replace(candidate(name, p50=p50), evidence=Evidence(Claim("accuracy", 0.01, Pairs(worse, 0, 100))))

    standings = select(
        [candidate("torch"), few("quick", 1, 0.1), few("safe", 0, 5), candidate("bad", drop=0.2)], rules()
    )
    assert [standings[name].rank for name in ("safe", "quick", "bad")] == [0, 1, 2]
    assert [standings[name].verdict for name in ("safe", "quick", "bad")] == ["undecided", "undecided", "missed"]


def test_a_variant_that_misses_a_measured_limit_costs_the_others_no_confidence() -> None:
    enough = Evidence(Claim("accuracy", 0.01, Pairs(0, 0, 299)))  # for one variant, not for two
    two = [replace(candidate(name), evidence=enough) for name in ("a", "b")]
    assert {one.verdict for one in select([candidate("torch"), *two], rules()).values()} == {"met", "undecided"}
    large = replace(candidate("b", size=9), evidence=enough)
    standings = select([candidate("torch"), two[0], large], rules(budget={"size_mb": 2}))
    assert [standings[name].verdict for name in "ab"] == ["met", "missed"]


def test_pareto_front_leaves_out_the_dominated() -> None:
    verdicts = select(
        [
            candidate("torch", p50=9),
            candidate("a", p50=1, drop=0.005),
            candidate("b", p50=2, drop=0.001),
            candidate("c", p50=3, drop=0.006),
        ],
        rules(),
    )
    assert {name for name, verdict in verdicts.items() if verdict.pareto} == {"torch", "a", "b"}


NOISE = (1.0, 1.3, 0.9, 1.1, 0.95, 1.2, 1.05, 1.4, 0.92, 1.15)


def test_what_noise_cant_tell_apart_goes_to_the_smaller_whoever_was_lucky() -> None:
    lucky, other = tuple(0.97 * value for value in NOISE), NOISE
    for first, second in ((lucky, other), (other, lucky)):
        small = candidate("small", size=0.5, p50=sorted(first)[4], rounds=first)
        large = candidate("large", size=1.0, p50=sorted(second)[4], rounds=second)
        verdicts = select([candidate("torch", p50=9), large, small], rules())
        assert verdicts["small"].rank == 0
        assert (
            verdicts["small"].reason
            == "best latency within the budget; a tie with large, whose reasons say what decided"
        )
        assert verdicts["large"].tied and not verdicts["small"].tied
        assert verdicts["large"].reason == "a tie with the winner in latency; size 1 MB, the winner's 0.5 MB"


@pytest.mark.parametrize(
    ("better", "words"),
    [({"drop": -0.004}, "quality drop 0.0000"), ({"steps": 1}, "made by 2 passes, the winner by 1")],
)
def test_a_tie_of_one_size_goes_to_the_closer_then_to_the_simpler(better: dict[str, Any], words: str) -> None:
    plain, chosen = candidate("plain", rounds=NOISE), candidate("chosen", rounds=NOISE, **better)
    verdicts = select([candidate("torch"), plain, chosen], rules())
    assert verdicts["chosen"].rank == 0
    assert words in verdicts["plain"].reason


def test_a_difference_in_every_round_is_none_of_noise() -> None:
    """The rounds differ by more than the variants, but in each the same one is faster."""
    fast = candidate("fast", p50=0.8, size=9, rounds=tuple(0.8 * value for value in NOISE))
    verdicts = select([candidate("torch"), candidate("slow", p50=1.0, rounds=NOISE), fast], rules())
    assert verdicts["fast"].rank == 0 and not verdicts["slow"].tied


def test_equal_variants_keep_the_recipes_order() -> None:
    twins = [candidate(name, rounds=NOISE) for name in ("a", "b")]
    verdicts = select([candidate("torch"), *twins], rules())
    assert verdicts["a"].rank == 0
    assert "the recipe names the winner first" in verdicts["b"].reason


def test_of_two_that_tie_the_one_with_the_sources_inputs_wins() -> None:
    turned = replace(candidate("nchw", p50=1.0, size=1), turned=True)
    verdicts = select([candidate("torch", p50=9), turned, candidate("straight", p50=1.01, size=2)], rules())
    assert verdicts["straight"].rank == 0
    assert "takes its inputs in another form than the source" in verdicts["nchw"].reason
    faster = replace(turned, measurements=candidate("nchw", p50=0.5).measurements)
    assert select([candidate("torch", p50=9), faster, candidate("straight", p50=1.0)], rules())["nchw"].rank == 0
