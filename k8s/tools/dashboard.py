"""The Grafana dashboard, made from the service's metrics, and the rules as the Prometheus operator takes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

K8S = Path(__file__).parent.parent
SELECT = 'namespace="$namespace",model=~"$model"'


@dataclass(frozen=True)
class Panel:
    """One graph.

    Attributes:
        title: above it.
        unit: Grafana's name of it.
        queries: (legend, PromQL); `{select}` stands for the chosen namespace and models.
        help: what to look for.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    help: str


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Callers",
        (
            Panel(
                "Requests",
                "reqps",
                (("{{model}} {{status}}", "sum by (model, status) (rate(hone_requests_total{{{select}}}[5m]))"),),
                "By status. 4xx are the callers' mistakes, 499 left before the answer, 5xx are ours.",
            ),
            Panel(
                "Latency",
                "s",
                (
                    ("{{model}} p50", "hone:request_seconds:p50_5m{{{select}}}"),
                    ("{{model}} p95", "hone:request_seconds:p95_5m{{{select}}}"),
                    ("{{model}} p99", "hone:request_seconds:p99_5m{{{select}}}"),
                ),
                "From the request's head to its answer.",
            ),
            Panel(
                "Errors",
                "percentunit",
                (("{{model}}", "hone:errors:ratio_rate5m{{{select}}}"),),
                "Share of requests answered with 5xx; alerts at 1 % and 5 %.",
            ),
            Panel(
                "Refused",
                "reqps",
                (("{{model}} {{reason}}", "sum by (model, reason) (rate(hone_shed_total{{{select}}}[5m]))"),),
                "Requests refused to protect the others: a full queue, a deadline that can't be met, stopping.",
            ),
        ),
    ),
    (
        "Batching",
        (
            Panel(
                "Rows in flight",
                "short",
                (
                    ("{{model}}", "hone:in_flight_rows{{{select}}}"),
                    ("{{model}} waiting", "sum by (model) (hone_waiting_rows{{{select}}})"),
                    ("{{model}} requests", "sum by (model) (hone_in_flight_requests{{{select}}})"),
                ),
                "What autoscaling goes by.",
            ),
            Panel(
                "Rows of a batch",
                "short",
                (("{{model}}", "hone:batch_rows:mean_rate5m{{{select}}}"),),
                "One row a batch under load means that nothing is batched.",
            ),
            Panel(
                "Where time goes",
                "s",
                (
                    (
                        "{{model}} waiting",
                        "sum by (model) (rate(hone_queue_seconds_sum{{{select}}}[5m])) / "
                        "sum by (model) (rate(hone_queue_seconds_count{{{select}}}[5m]))",
                    ),
                    (
                        "{{model}} in the runtime",
                        "sum by (model) (rate(hone_inference_seconds_sum{{{select}}}[5m])) / "
                        "sum by (model) (rate(hone_inference_seconds_count{{{select}}}[5m]))",
                    ),
                ),
                "Mean seconds in the queue, and of one batch.",
            ),
            Panel(
                "Cache",
                "percentunit",
                (("{{model}}", "hone:cache_hits:ratio_rate15m{{{select}}}"),),
                "Share of requests answered from the cache, where it is on.",
            ),
        ),
    ),
    (
        "Model",
        (
            Panel(
                "Predicted classes",
                "percentunit",
                (("{{output}} {{choice}}", "hone:predicted_class:share1h{{{select}}}"),),
                "Share of each class in the last hour, of sampled requests.",
            ),
            Panel(
                "Drift",
                "percentunit",
                (
                    ("{{group}}", "hone_drift_effect{{{select}}}"),
                    ("{{group}}, at least", "hone_drift_effect_low{{{select}}}"),
                ),
                "How far rows have moved from the proof's, as hone drift watch finds; alerts by its verdict.",
            ),
            Panel(
                "Inputs",
                "short",
                (
                    ("{{input}} mean", "avg by (input) (hone_input_mean{{{select}}})"),
                    ("{{input}} deviation", "avg by (input) (hone_input_deviation{{{select}}})"),
                ),
                "Mean and spread of sampled requests' values.",
            ),
            Panel(
                "Shadow",
                "short",
                (
                    (
                        "{{model}} agrees: {{agrees}}",
                        "sum by (model, agrees) (rate(hone_shadow_rows_total{{{select}}}[5m]))",
                    ),
                    ("{{model}} gap", "max by (model) (hone_shadow_gap{{{select}}})"),
                ),
                "Rows that a shadowed model answered alike, and the largest difference.",
            ),
            Panel(
                "Other answers than proven",
                "short",
                (("{{pod}} {{model}}:{{version}}", "max by (pod, model, version) (hone_golden_mismatch{{{select}}})"),),
                "1: a pod's answers to a version's golden rows are not its proof's, and it is not served there.",
            ),
        ),
    ),
    (
        "Pods",
        (
            Panel(
                "Replicas",
                "short",
                (
                    (
                        "running",
                        'kube_horizontalpodautoscaler_status_current_replicas{{namespace="$namespace",'
                        'horizontalpodautoscaler="hone"}}',
                    ),
                    (
                        "most",
                        'kube_horizontalpodautoscaler_spec_max_replicas{{namespace="$namespace",'
                        'horizontalpodautoscaler="hone"}}',
                    ),
                ),
                "At the upper bound for long: raise it, or the pods' size.",
            ),
            Panel(
                "Processor",
                "short",
                (
                    (
                        "{{pod}}",
                        'sum by (pod) (rate(container_cpu_usage_seconds_total{{namespace="$namespace",'
                        'container="model"}}[5m]))',
                    ),
                ),
                "Cores in use by each pod.",
            ),
            Panel(
                "Memory",
                "bytes",
                (
                    (
                        "{{pod}}",
                        'max by (pod) (container_memory_working_set_bytes{{namespace="$namespace",container="model"}})',
                    ),
                ),
                "It stays flat: what a service needs it has after its start.",
            ),
            Panel(
                "Cost",
                "short",
                (
                    ("an hour", 'hone:cost:per_hour{{namespace="$namespace"}}'),
                    ("a million requests", 'hone:cost:per_million_requests{{namespace="$namespace"}}'),
                ),
                "Of the running pods, where hone k8s rules was given prices.",
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """Return the dashboard in Grafana's format."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS:
        panels.append(
            {"type": "row", "title": title, "collapsed": False, "gridPos": _place(0, top, 24, 1), "panels": []}
        )
        width = 24 // len(row)
        panels += [_graph(panel, _place(index * width, top + 1, width, 8)) for index, panel in enumerate(row)]
        top += 9
    for number, drawn in enumerate(panels, 1):
        drawn["id"] = number
    return {
        "title": "Hone",
        "uid": "hone",
        "tags": ["hone"],
        "schemaVersion": 41,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "type": "datasource", "query": "prometheus"},
                _variable("namespace", "label_values(hone_requests_total, namespace)", several=False),
                _variable("model", 'label_values(hone_requests_total{namespace="$namespace"}, model)', several=True),
            ]
        },
        "panels": panels,
    }


def to_json() -> str:
    return json.dumps(dashboard(), indent=2) + "\n"


def prometheus_rule(*more: dict[str, Any]) -> str:
    """Return `monitoring/rules.yaml` as an object of the Prometheus operator, and more groups of rules in it."""
    groups = [*yaml.safe_load((K8S / "monitoring" / "rules.yaml").read_text())["groups"], *more]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "hone", "labels": {"app.kubernetes.io/name": "hone"}},
        "spec": {"groups": groups},
    }
    head = "# monitoring/rules.yaml for the Prometheus operator. Made by `hone k8s rules`; do not edit by hand.\n"
    return head + yaml.safe_dump(rule, sort_keys=False, width=120)


def expressions() -> list[str]:
    """Return every PromQL expression of the dashboard."""
    return [query for _, row in ROWS for panel in row for _, query in panel.queries]


def _graph(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.help,
        "datasource": source,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(65 + index),
                "datasource": source,
                "legendFormat": legend,
                "expr": query.format(select=SELECT),
            }
            for index, (legend, query) in enumerate(panel.queries)
        ],
    }


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _variable(name: str, query: str, *, several: bool) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "query": query,
        "refresh": 2,
        "multi": several,
        "includeAll": several,
    }
