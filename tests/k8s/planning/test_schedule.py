"""Scheduled peaks: what `hone k8s render --forecast` makes of a forecast, read as KEDA's cron scaler reads it."""

from __future__ import annotations

import json
import math
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hone import store
from hone.cli.main import cli
from hone.errors import HoneError
from hone.k8s.numbers import FEWEST_PODS, pods_for
from hone.k8s.planning.outlook import Forecast, Horizon, Peak, Point
from hone.k8s.planning.schedule import LEAD_MINUTES, schedule_of
from hone.k8s.tools.cluster import manifests
from hone.k8s.tools.render import render
from tests.capacities import capacity
from tests.models.dense import dense_artifact

IMAGE = "registry.example.com/hone/digits@sha256:" + "a" * 64
TAG = "digits:onnx-fp32-1"
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


def rate_at(t: datetime) -> float:
    """Two peaks on weekdays, one of them over midnight, and one on Saturday; else little."""
    if t.weekday() < 5 and 9 <= t.hour < 17:
        return 4000.0 + 100 * t.weekday()
    if t.hour >= 22 or t.hour < 1:
        return 5000.0
    return 6000.0 if t.weekday() == 5 and t.hour == 12 else 300.0


def written(folder: Path, hours: int = 168, high: Any = rate_at, **changes: Any) -> Path:
    """Write a forecast that begins on a Monday at 13:00."""
    times = [MONDAY + timedelta(hours=13 + hour) for hour in range(hours)]
    points = [Point(t=t, rate=high(t) / 2, low=0, high=high(t)) for t in times]
    top = Peak(t=times[0], rate=max(point.rate for point in points), upper=1.1 * max(point.high for point in points))
    content: dict[str, Any] = {
        "source": "a test", "history_start": MONDAY - timedelta(days=28), "history_end": times[0], "method": "none",
        "model": "none", "level": 0.95, "capacity": None, "peaks": [], "back_test": None, "notes": [],
        "points": points, "horizons": [Horizon(days=7, mean=1, requests=1, peak=top)],
    }  # fmt: skip
    file = folder / "forecast.json"
    file.write_text(Forecast(**{**content, **changes}).model_dump_json())
    return file


def rendered(folder: Path, components: tuple[str, ...] = (), peak: float | None = None, **changes: Any) -> Path:
    (folder / "capacity.json").write_text(capacity().model_dump_json())
    out = folder / "deploy"
    file = written(folder, **changes)
    render("digits", TAG, IMAGE, folder / "capacity.json", out, peak=peak, components=components, forecast=file)
    return out


def scaled(out: Path) -> dict[str, Any]:
    (found,) = [item["spec"] for item in manifests(out) if item["kind"] == "ScaledObject"]
    spec: dict[str, Any] = found
    return spec


WEEK = 7 * 24 * 60


def minutes_until(expression: str, t: datetime) -> int:
    """Return the minutes from after a time to the next of a cron expression."""
    minute, hour, _, _, days = expression.split()
    now = ((t.weekday() + 1) % 7 * 24 + t.hour) * 60 + t.minute + 1
    return min(((int(day) * 24 + int(hour)) * 60 + int(minute) - now) % WEEK for day in days.split(","))


def scheduled(triggers: list[dict[str, Any]], t: datetime) -> int:
    """Return the pods that the cron scalers ask for: one is on while its next end comes before its next start."""
    on = [
        int(each["metadata"]["desiredReplicas"])
        for each in triggers
        if each["type"] == "cron"
        and minutes_until(each["metadata"]["end"], t) < minutes_until(each["metadata"]["start"], t)
    ]
    return max(on, default=0)


@needs_kubectl
def test_pods_are_there_before_each_peak_and_not_all_day(tmp_path: Path) -> None:
    spec = scaled(rendered(tmp_path))
    assert [trigger["type"] for trigger in spec["triggers"][:3]] == ["prometheus", "cpu", "cron"]
    for hour in range(168):
        t = MONDAY + timedelta(days=7, hours=hour)
        wanted = pods_for(capacity(), rate_at(t))
        pods = scheduled(spec["triggers"], t)
        if rate_at(t) > 3000 and not (t.weekday() == 5 and t.hour != 12):
            # On Saturday the peak at noon is so much higher that the one at night is the other triggers' business.
            assert pods >= wanted
        if rate_at(t) > 3000 and rate_at(t - timedelta(hours=1)) < 1000:
            assert scheduled(spec["triggers"], t - timedelta(minutes=LEAD_MINUTES)) >= min(pods, wanted)
        if 2 <= t.hour < 8:
            assert pods == 0
    assert all(
        int(trigger["metadata"]["desiredReplicas"]) <= spec["maxReplicaCount"] for trigger in spec["triggers"][2:]
    )


@needs_kubectl
def test_days_alike_share_a_trigger_and_the_page_says_when(tmp_path: Path) -> None:
    out = rendered(tmp_path, high=lambda t: 4000.0 if t.weekday() < 5 and 9 <= t.hour < 17 else 100.0)
    spec = scaled(out)
    (cron,) = spec["triggers"][2:]
    assert cron["metadata"] == {
        "timezone": "Etc/UTC", "start": "50 8 * * 1,2,3,4,5", "end": "0 17 * * 1,2,3,4,5", "desiredReplicas": "7",
    }  # fmt: skip
    assert spec["maxReplicaCount"] == math.ceil(4400 / 700) + 1
    page = (out / "numbers.md").read_text()
    assert "Scheduled peaks (UTC; forecast.json, from a test): Mon,Tue,Wed,Thu,Fri 09:00-17:00 7 pods" in page
    assert not [item for item in manifests(out) if item["kind"] == "HorizontalPodAutoscaler"]


@needs_kubectl
@pytest.mark.parametrize("components", [("scheduled-peaks",), ("keda",), ("metrics", "keda", "redis")])
def test_keda_is_there_once_whoever_names_it(tmp_path: Path, components: tuple[str, ...]) -> None:
    assert len(scaled(rendered(tmp_path, components))["triggers"]) > 2


@needs_kubectl
def test_command_takes_the_forecast_that_the_other_writes(tmp_path: Path) -> None:
    store.put(dense_artifact(tmp_path / "made", name="digits"), "digits", "onnx-fp32-1")
    tag = store.resolve("digits").tag
    (tmp_path / "capacity.json").write_text(capacity(model=tag, rate=100, rate_lower_95=90).model_dump_json())
    day = [50 + 400 * (9 <= hour < 17) for hour in range(24)]
    start = int(MONDAY.timestamp()) - 21 * 86400
    rows = "".join(f"{start + 3600 * hour},{day[hour % 24] * (1 + 0.01 * (hour % 7))}\n" for hour in range(21 * 24))
    (tmp_path / "load.csv").write_text("t,rate\n" + rows)
    files = {name: str(tmp_path / name) for name in ("load.csv", "capacity.json", "forecast.json", "deploy")}
    common = ["--capacity", files["capacity.json"]]
    for arguments in (
        ["capacity", "forecast", "--csv", files["load.csv"], "--days", "7", *common, "--out", files["forecast.json"]],
        ["k8s", "render", "digits", *common, "--image", IMAGE, "--forecast", files["forecast.json"],
         "--out", files["deploy"]],
    ):  # fmt: skip
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.output
    triggers = scaled(tmp_path / "deploy")["triggers"]
    assert scheduled(triggers, MONDAY + timedelta(hours=12)) >= math.ceil(450 / (0.7 * 90))
    assert scheduled(triggers, MONDAY + timedelta(hours=3)) == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hours": 167}, r"forecast\.json: 167 hours; a schedule takes a week"),
        ({"high": lambda t: 100.0}, r"no hour takes more than the 2 pods that always run; leave --forecast out"),
        ({"capacity": "digits:onnx-int8-1"}, r"counts the pods of digits:onnx-int8-1, not of digits:onnx-fp32-1"),
        ({"peak": 1000.0}, r"--peak: 1000 is below the 6,600/s of forecast\.json, from a test; give more, or none"),
        ({"components": ("memory-hpa",)}, r"memory-hpa: with KEDA the autoscaler is KEDA's; leave one of them out"),
    ],
)
def test_wrong_forecast_writes_nothing(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(HoneError, match=words):
        rendered(tmp_path, **changes)
    assert not (tmp_path / "deploy").exists()


def test_times_are_never_made_up(tmp_path: Path) -> None:
    (tmp_path / "capacity.json").write_text(capacity().model_dump_json())
    with pytest.raises(HoneError, match="scheduled-peaks: its times come from a forecast; give --forecast"):
        render("digits", TAG, IMAGE, tmp_path / "capacity.json", tmp_path / "deploy", peak=None,
               components=("scheduled-peaks",))  # fmt: skip


@pytest.mark.parametrize("content", ["", "{}", json.dumps({"kind": "capacity"})])
def test_file_that_is_no_forecast_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "f.json").write_text(content)
    with pytest.raises(HoneError, match=r"f\.json: not a forecast"):
        schedule_of(tmp_path / "f.json", capacity(), FEWEST_PODS)
