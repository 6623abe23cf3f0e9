"""`hone capacity plan`: pods, machines and money from measured capacities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hone.capacity import Slo
from hone.cli.main import cli
from hone.k8s.numbers import numbers_of
from hone.k8s.prices import Price, parse_budget
from tests.capacities import capacity, trial

PRICES = ("--cpu-hour", "0.04", "--gb-hour", "0.005")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def measured(variant: str = "onnx-fp32-1", **changes: Any) -> str:
    content = {"model": f"digits:{variant}", "rate_lower_95": 900, **changes}
    Path(f"{variant}.json").write_text(capacity(**content).model_dump_json())
    return f"{variant}.json"


def plan(*arguments: str, rate: str = "4500") -> Result:
    return CliRunner().invoke(cli, ["capacity", "plan", "--rate", rate, "--p99", "50ms", *arguments])


def planned(*arguments: str, rate: str = "4500") -> dict[str, Any]:
    result = plan(*arguments, "--out", "plan.json", rate=rate)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(Path("plan.json").read_text())
    return found


def test_pods_hold_the_rate_with_headroom_and_one_to_spare() -> None:
    (variant,) = planned(measured(), *PRICES)["variants"]
    # 4500 / (0.7 x 900 proven) are 7.1, and one more; not 4500 / 1000, where the search ended.
    assert variant["pods"] == 9
    assert (variant["pod_rate"], variant["proven"]) == (900, True)
    one_less = (variant["pods"] - 1) * variant["pod_rate"] * 0.7
    assert one_less >= 4500 > one_less - 0.7 * variant["pod_rate"]


@pytest.mark.parametrize(("rate", "spare", "pods"), [("1", "1", 2), ("1", "0", 2), ("630", "1", 2), ("631", "1", 3)])
def test_two_pods_at_least(rate: str, spare: str, pods: int) -> None:
    (variant,) = planned(measured(), "--spare", spare, rate=rate)["variants"]
    assert variant["pods"] == pods


def test_a_pod_is_what_the_manifests_ask_for() -> None:
    (variant,) = planned(measured(), *PRICES)["variants"]
    numbers = numbers_of(capacity(), "digits:onnx-fp32-1", Path("capacity.json"), 4500)
    assert (variant["pod_cores"], variant["pod_memory_mib"]) == (numbers.cpu, numbers.memory_mib)


def test_cost_is_that_of_all_pods_and_its_parts_add_up() -> None:
    (variant,) = planned(measured(), *PRICES)["variants"]
    cost, waste = variant["cost"], variant["waste"]
    hour = 9 * (2 * 0.04 + 0.536870912 * 0.005)  # 2 cores and 512 MiB
    assert cost["hour"] == pytest.approx(hour)
    assert cost["day"] == pytest.approx(24 * hour)
    assert cost["month"] == pytest.approx(730 * hour)
    assert cost["per_million"] == pytest.approx(hour / (4500 * 3600) * 1e6)
    for parts in (cost["day_by_resource"], cost["day_by_purpose"]):
        assert sum(parts.values()) == pytest.approx(cost["day"])
    assert waste["share"] == pytest.approx(1 - 4500 / (9 * 900))
    assert waste["headroom"] + waste["spare"] + waste["rounding"] == pytest.approx(waste["share"])
    assert waste["spare"] == pytest.approx(1 / 9)


def test_predictions_are_rows() -> None:
    one = planned(measured(), *PRICES)["variants"][0]["cost"]
    eight = planned(measured(rows=8), *PRICES, "--rows", "8")["variants"][0]["cost"]
    assert eight["per_million"] == pytest.approx(one["per_million"] / 8)


def test_cheapest_is_first_and_one_that_needs_a_gpu_is_priced_with_it() -> None:
    files = [measured(), measured("onnx-int8-1", rate_lower_95=2000), measured("tensorrt-fp16-1", rate_lower_95=8000)]
    found = planned(*files, *PRICES, "--gpu-hour", "1.5")
    assert [variant["model"] for variant in found["variants"]] == [
        "digits:onnx-int8-1", "digits:onnx-fp32-1", "digits:tensorrt-fp16-1",
    ]  # fmt: skip
    assert found["cheapest"] == "digits:onnx-int8-1"
    assert [variant["pod_gpus"] for variant in found["variants"]] == [0, 0, 1]
    assert found["variants"][2]["cost"]["day_by_resource"]["gpu"] == pytest.approx(24 * 2 * 1.5)
    cheap = planned(*files, *PRICES, "--gpu-hour", "0.01")
    assert cheap["cheapest"] == "digits:tensorrt-fp16-1"
    named = planned(*files, *PRICES, "--gpu-hour", "1.5", "--gpu", "onnx-int8-1")
    assert named["cheapest"] == "digits:onnx-fp32-1"


def test_gpu_without_a_price_is_no_bargain() -> None:
    result = plan(measured(), measured("tensorrt-fp16-1", rate_lower_95=90000), *PRICES)
    assert result.exit_code == 0
    assert "tensorrt-fp16-1: it takes a GPU, which has no price (give --gpu-hour), so its cost is not known" in (
        result.output
    )
    assert "cheapest: digits:onnx-fp32-1, 9 pods" in result.output


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"repeats": [trial(rss_mb=None)]}, "memory was not measured"),
        ({"repeats": [trial(cpu_cores=None)]}, "processor was not measured"),
        ({"repeats": [trial(cpu_cores=None, rss_mb=None)]}, "processor and memory were not measured"),
    ],
)
def test_what_was_not_measured_has_no_cost_and_is_said(changes: dict[str, Any], words: str) -> None:
    result = plan(measured(**changes), *PRICES, "--out", "plan.json")
    assert result.exit_code == 0
    assert f"note: onnx-fp32-1: {words}" in result.output
    found = json.loads(Path("plan.json").read_text())
    assert found["cheapest"] is None
    assert (found["variants"][0]["pods"], found["variants"][0]["cost"]) == (9, None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"slo": Slo(limit_ms=20)}, "was measured with p99 <= 20 ms, not with p99 <= 50 ms; measure it: hone bench"),
        ({"slo": Slo(percentile="p95_ms", limit_ms=50)}, "was measured with p95 <= 50 ms, not with p99 <= 50 ms"),
        ({"slo": Slo(limit_ms=50, errors=0.01)}, "was measured with errors up to 1.00%, not 0.10%"),
        ({"rows": 8}, "was measured with 8 row(s) a request, not 1; give --rows"),
        ({"rate": 0, "rate_lower_95": None}, "held no rate with p99 <= 50 ms"),
    ],
)
def test_capacity_of_something_else_is_named_in_one_line(changes: dict[str, Any], words: str) -> None:
    other = measured("onnx-int8-1", **changes)
    result = plan(measured(), other, *PRICES)
    assert result.exit_code == 0
    (line,) = [line for line in result.output.splitlines() if line.startswith("does not fit")]
    assert line.startswith(f"does not fit: {other}: {words}")
    alone = plan(other, *PRICES)
    assert alone.exit_code == 1
    assert alone.output.startswith(f"error: no capacity fits: {other}: {words}")
    assert len(alone.output.splitlines()) == 1


def test_budget_is_compared_with_the_cheapest() -> None:
    files = (measured(), measured("onnx-int8-1", rate_lower_95=2000))
    within = plan(*files, *PRICES, "--budget", "400/month")
    assert within.exit_code == 0, within.output
    assert within.output.splitlines()[1].split()[-1] == "75%"  # of 400: 300
    above = plan(*files, *PRICES, "--budget", "10/day", "--out", "plan.json")
    assert above.exit_code == 0, above.output
    above = plan(*files, *PRICES, "--budget", "8/day", "--out", "plan.json")
    assert above.exit_code == 3
    assert "digits:onnx-int8-1, the cheapest, takes" in above.output.splitlines()[-1]
    assert json.loads(Path("plan.json").read_text())["variants"][0]["cost"]["budget_share"] > 1


def test_without_prices_pods_are_planned_all_the_same() -> None:
    result = plan(measured(), measured("onnx-int8-1", rate_lower_95=2000))
    assert result.exit_code == 0
    assert result.output.splitlines()[1].split()[:3] == ["onnx-int8-1", "2,000/s", "5"]
    assert "no prices: give --cpu-hour and --gb-hour" in result.output


def test_hosts_that_differ_are_said() -> None:
    files = (measured(), measured("onnx-int8-1", host={"cpu": "y", "cores": 4}))
    assert "note: measured on several hosts" in plan(*files).output
    assert "several hosts" not in plan(measured(), measured("onnx-int8-1")).output


def test_measured_files_are_found_by_themselves() -> None:
    assert "name the files that hone bench capacity wrote" in plan().output
    folder = Path("out") / "digits"
    folder.mkdir(parents=True)
    Path(measured()).rename(folder / "capacity.json")
    assert "onnx-fp32-1" in plan().output


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (("none.json",), "none.json: no such file; 'hone bench capacity", 1),
        (("a.json", "a.json"), "a.json: is of digits:onnx-fp32-1, as a.json is; give one for each variant", 1),
        (("a.json", "--gpu", "onx"), "--gpu: no capacity of 'onx'; there are onnx-fp32-1", 1),
        (("a.json", "--budget", "5/month"), "--budget: give prices", 2),
        (("a.json", "--p95", "20ms"), "give one of --p50, --p95 and --p99", 2),
        (("a.json", "--cpu-hour", "-1"), "-1", 2),
    ],
)
def test_wrong_argument_is_refused(arguments: tuple[str, ...], words: str, status: int) -> None:
    Path(measured()).rename("a.json")
    result = plan(*arguments, "--out", "plan.json")
    assert result.exit_code == status, result.output
    assert words in result.output
    assert not Path("plan.json").exists()


def test_unknown_cost_is_no_kept_budget() -> None:
    result = plan(measured(repeats=[trial(rss_mb=None)]), *PRICES, "--budget", "1000/day")
    assert result.exit_code == 1
    assert "--budget: no variant's cost is known; the notes say why" in result.output


def test_units_of_time_are_those_of_price_lists() -> None:
    assert parse_budget("730/month") == pytest.approx(1)
    assert parse_budget(" 87.6 / year ") == pytest.approx(0.01)
    assert sum(Price(1, 1, 1).parts(2, 1e9 / 2**20, 3).values()) == pytest.approx(6)
