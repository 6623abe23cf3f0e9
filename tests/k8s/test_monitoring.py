"""Alerts, dashboard and routes: they use metrics that exist, and every alert is seen to fire and not to fire."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone.k8s.tools.dashboard import expressions, prometheus_rule, to_json

K8S = Path(__file__).parents[2] / "k8s"


def metric_names() -> set[str]:
    """Return the names under which Prometheus knows the service's metrics."""
    from prometheus_client import Counter, Histogram

    from hone.services.observe.metrics import _families

    names = set()
    for family in _families().values():
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
    recorded = {rule["record"] for rule in rules() if "record" in rule}
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
    assert yaml.safe_load(prometheus_rule())["spec"]["groups"][1]["rules"][0]["alert"] == "HoneDown"


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


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_rules_pass_their_tests() -> None:
    for command in (["promtool", "check", "rules", "rules.yaml"], ["promtool", "test", "rules", "rules_test.yaml"]):
        done = subprocess.run(command, cwd=K8S / "monitoring", capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool is not installed")
def test_alerts_are_routed_by_severity() -> None:
    file = str(K8S / "monitoring" / "alertmanager.yaml")
    done = subprocess.run(["amtool", "check-config", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for severity, receiver in (("critical", "on-call"), ("warning", "team"), ("info", "quiet")):
        command = ["amtool", "config", "routes", "test", f"--config.file={file}", f"severity={severity}"]
        assert subprocess.run(command, capture_output=True, text=True).stdout.split() == [receiver]
