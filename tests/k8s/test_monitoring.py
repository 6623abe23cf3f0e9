"""Alerts, dashboard and routes: they use metrics that exist, and every alert is seen to fire and not to fire."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from hone.cli.main import cli
from hone.k8s.prices import Price, price_rules
from hone.k8s.tools.dashboard import expressions, prometheus_rule, to_json

K8S = Path(__file__).parents[2] / "k8s"


def metric_names() -> set[str]:
    """Return the names under which Prometheus knows the metrics of the service and the watches of drift and quality."""
    from prometheus_client import Counter, Histogram

    from hone.lifecycle.drift.gauges import Gauges
    from hone.lifecycle.feedback.gauges import Gauges as QualityGauges
    from hone.services.jobs.metrics import _families as of_jobs
    from hone.services.observe.metrics import _families, _golden_families

    names = {family.name for gauges in (Gauges(), QualityGauges()) for family in gauges._registry.collect()}
    for family in (*_families().values(), *_golden_families(), *of_jobs().values()):
        name = family._name
        if isinstance(family, Counter):
            names.add(f"{name}_total")
        elif isinstance(family, Histogram):
            names |= {f"{name}_{ending}" for ending in ("bucket", "sum", "count")}
        else:
            names.add(name)
    return names


def rules() -> list[dict[str, Any]]:
    content = yaml.safe_load((K8S / "monitoring" / "rules.yaml").read_text())
    return [rule for group in content["groups"] for rule in group["rules"]]


def test_dashboard_and_rules_use_metrics_that_exist() -> None:
    prices = price_rules(Price(), 1.0)["rules"]
    recorded = {rule["record"] for rule in (*rules(), *prices) if "record" in rule}
    known = metric_names()
    used = set()
    for expression in [*expressions(), *(rule["expr"] for rule in rules())]:
        used |= set(re.findall(r"\bhone_\w+", expression))
        assert set(re.findall(r"\bhone:[\w:]+", expression)) <= recorded
    assert used <= known, used - known
    # And the adapter's and KEDA's.
    for file in ("monitoring/prometheus-adapter.yaml", "components/keda/scaledobject.yaml"):
        assert "hone_row_seconds_total" in (K8S / file).read_text()
    assert "hone_row_seconds_total" in known


def test_made_files_are_what_the_code_makes() -> None:
    metrics = K8S / "components" / "metrics"
    assert (metrics / "dashboard.json").read_text() == to_json(), "run: make dashboard"
    assert (metrics / "prometheusrule.yaml").read_text() == prometheus_rule(), "run: make dashboard"
    assert yaml.safe_load(prometheus_rule())["spec"]["groups"][2]["rules"][0]["alert"] == "HoneDown"


def alerts() -> list[str]:
    return [rule["alert"] for rule in rules() if "alert" in rule]


def test_every_alert_is_tested_both_ways() -> None:
    """An alert that was never seen to fire may be unable to; one that was never seen to rest may never do so."""
    content = yaml.safe_load((K8S / "monitoring" / "rules_test.yaml").read_text())
    cases = [case for test in content["tests"] for case in test.get("alert_rule_test", [])]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    rests = {case["alertname"] for case in cases if not case["exp_alerts"]}
    assert sorted(fires) == sorted(alerts())
    assert sorted(rests) == sorted(alerts())


def test_every_alert_has_a_runbook_page() -> None:
    runbook = (K8S / "monitoring" / "runbook.md").read_text()
    anchors = {heading.lower() for heading in re.findall(r"^## (\w+)$", runbook, re.MULTILINE)}
    for rule in rules():
        if "alert" in rule:
            assert rule["annotations"]["runbook"].rpartition("#")[2] in anchors


PATIENT = {**os.environ, "GOGC": "400"}
"""promtool, whose search for garbage is a fifth of its time."""


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_rules_pass_their_tests() -> None:
    for command in (["promtool", "check", "rules", "rules.yaml"], ["promtool", "test", "rules", "rules_test.yaml"]):
        done = subprocess.run(command, cwd=K8S / "monitoring", capture_output=True, text=True, env=PATIENT)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(("pods", "percent"), [(2, None), (3, 110)])
def test_prices_and_budget_of_the_command_make_the_alert_fire(tmp_path: Path, pods: int, percent: int | None) -> None:
    """What `hone k8s rules` writes, as Prometheus computes it: pods of 2.20 an hour, and 6 an hour to spend."""
    arguments = ["--cpu-hour", "0.04", "--gb-hour", "0.005", "--gpu-hour", "2", "--budget", "144/day"]
    result = CliRunner().invoke(cli, ["k8s", "rules", *arguments, "--out", str(tmp_path / "object.yaml")])
    assert result.exit_code == 0, result.output
    made = yaml.safe_load((tmp_path / "object.yaml").read_text())["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(made))
    cost = {
        "expr": "round(hone:cost:per_hour, 0.01)",
        "eval_time": "1h",
        "exp_samples": [{"labels": '{namespace="hone"}', "value": round(2.2 * pods, 2)}],
    }
    alert = {
        "exp_labels": {"severity": "warning", "namespace": "hone"},
        "exp_annotations": {
            "summary": f"The pods of hone take {percent}% of the budget, as a mean of a day.",
            "runbook": "k8s/monitoring/runbook.md#honebudget",
        },
    }
    fires = {"alertname": "HoneBudget", "eval_time": "1h", "exp_alerts": [alert] if percent else []}
    test = {"interval": "5m", "input_series": pods_of(pods), "promql_expr_test": [cost], "alert_rule_test": [fires]}
    case = {"rule_files": ["rules.yaml"], "evaluation_interval": "30s", "tests": [test]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(case))
    done = subprocess.run(["promtool", "test", "rules", "test.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def pods_of(count: int) -> list[dict[str, str]]:
    """Return the series of running pods with 4 cores, 8 GB and a GPU each, as kube-state-metrics writes them."""
    series = {'up{job="hone/hone",namespace="hone"}': 1.0}
    for pod in range(count):
        labels = f'namespace="hone",pod="{pod}"'
        series[f'kube_pod_status_phase{{{labels},phase="Running"}}'] = 1
        for resource, amount in (("cpu", 4), ("memory", 8e9), ("nvidia_com_gpu", 1)):
            series[f'kube_pod_container_resource_requests{{{labels},container="model",resource="{resource}"}}'] = amount
    return [{"series": name, "values": f"{value:.0f}x30"} for name, value in series.items()]


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (["--budget", "500/month"], "--budget: give prices, --cpu-hour and --gb-hour", 2),
        (["--gpu-hour", "2"], "--gpu-hour: pods take cores and memory, too", 2),
        (["--cpu-hour", "1", "--budget", "500"], "'500' is no budget; write 500/month", 1),
        (["--cpu-hour", "1", "--budget", "0/day"], "'0/day' is no budget", 1),
        (["--cpu-hour", "1", "--budget", "5/moon"], "'5/moon' is no budget", 1),
    ],
)
def test_wrong_prices_are_refused(arguments: list[str], words: str, status: int) -> None:
    result = CliRunner().invoke(cli, ["k8s", "rules", *arguments])
    assert result.exit_code == status
    assert words in result.output
    assert "alert" not in result.output


@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool is not installed")
def test_alerts_are_routed_by_severity() -> None:
    file = str(K8S / "monitoring" / "alertmanager.yaml")
    done = subprocess.run(["amtool", "check-config", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for severity, receiver in (("critical", "on-call"), ("warning", "team"), ("info", "quiet")):
        command = ["amtool", "config", "routes", "test", f"--config.file={file}", f"severity={severity}"]
        assert subprocess.run(command, capture_output=True, text=True).stdout.split() == [receiver]
