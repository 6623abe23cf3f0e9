"""Manifests that give a new version its requests step by step."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from hone.errors import HoneError
from hone.k8s.tools.cluster import manifests
from hone.k8s.tools.render import render
from hone.k8s.tools.rollouts.kinds import KINDS, Rollout
from hone.k8s.tools.rollouts.queries import difference, questions
from hone.services.observe.metrics import SECONDS
from tests.capacities import capacity
from tests.cluster import definitions
from tests.k8s.test_control_plane import closed

Objects = dict[tuple[str, str], dict[str, Any]]
TAG, IMAGE = "digits:onnx-fp32-1", "registry.example.com/hone/digits:1"
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


def rendered(folder: Path, rollout: Rollout, *components: str) -> Objects:
    file = folder / "capacity.json"
    file.write_text(capacity(model=TAG).model_dump_json())
    render("digits", TAG, IMAGE, file, folder / "deploy", peak=3000, components=components, rollout=rollout)
    return {(item["kind"], item["metadata"]["name"]): item for item in manifests(folder / "deploy")}


def pods_of(item: dict[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = item["spec"]["template"]["metadata"]["labels"]
    return labels


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    named = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return named and all(labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", []))


needs_crds = pytest.mark.skipif(not os.environ.get("HONE_TEST_CRDS"), reason="HONE_TEST_CRDS is not set")


def schema_of(item: dict[str, Any]) -> Any:
    """Return the schema of a kind of another project, under which unknown fields are errors; None for other kinds."""
    group, _, version = item["apiVersion"].rpartition("/")
    definition = definitions().get((group, item["kind"]))
    if definition is None:
        return None
    (found,) = [known for known in definition["spec"]["versions"] if known["name"] == version]
    schema = closed(found["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


@needs_crds
def test_objects_in_the_documentation_fit_theirs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "rollout.md").read_text()
    template, hooks = (yaml.safe_load(part.partition("```")[0]) for part in page.split("```yaml")[1:])
    jsonschema.validate(template, schema_of(template))
    canary = {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "hone"},
            "service": {"port": 80},
            "analysis": {"interval": "1m", "threshold": 1, "stepWeights": [5], **hooks},
        },
    }
    jsonschema.validate(canary, schema_of(canary))


@needs_kubectl
@needs_crds
@pytest.mark.parametrize("kind", KINDS)
def test_objects_fit_their_kinds_strictly(tmp_path: Path, kind: str) -> None:
    wanted = {
        "argo": {"Rollout", "AnalysisTemplate"},
        "flagger": {"Canary", "MetricTemplate"},
        "gateway": {"HTTPRoute"},
    }
    checked = set()
    for (name, _), item in rendered(tmp_path, Rollout(kind)).items():
        schema = schema_of(item)
        if schema is not None:
            jsonschema.validate(item, schema)
            checked.add(name)
    assert wanted[kind] <= checked


@needs_kubectl
def test_second_deployment_is_measured_scales_by_itself_and_shares_no_pods(tmp_path: Path) -> None:
    found = rendered(tmp_path, Rollout("gateway", "registry.example.com/hone/digits:2"), "in-flight-hpa")
    both = ("hone", "hone-canary")
    stable, canary = (found["Deployment", name] for name in both)
    for one, other in ((stable, canary), (canary, stable)):
        assert selects(one["spec"]["selector"], pods_of(one))
        assert not selects(one["spec"]["selector"], pods_of(other))
    for name, mine in zip(both, (stable, canary), strict=True):
        assert selects({"matchLabels": found["Service", name]["spec"]["selector"]}, pods_of(mine))
        assert selects(found["PodDisruptionBudget", name]["spec"]["selector"], pods_of(mine))
        for kind, field in (("NetworkPolicy", "podSelector"), ("PodMonitor", "selector")):
            assert selects(found[kind, "hone"]["spec"][field], pods_of(mine))
        assert found["HorizontalPodAutoscaler", name]["spec"]["scaleTargetRef"]["name"] == name
    scalers = [found["HorizontalPodAutoscaler", name]["spec"] for name in both]
    assert scalers[0]["metrics"] == scalers[1]["metrics"]
    assert len(scalers[0]["metrics"]) == 2
    containers = [one["spec"]["template"]["spec"]["containers"][0] for one in (stable, canary)]
    assert [one["image"] for one in containers] == [IMAGE, "registry.example.com/hone/digits:2"]
    assert containers[0]["resources"] == containers[1]["resources"]
    (route,) = found["HTTPRoute", "hone"]["spec"]["rules"]
    assert [(one["name"], one["weight"]) for one in route["backendRefs"]] == [("hone", 100), ("hone-canary", 0)]


@needs_kubectl
def test_argo_takes_the_pods_and_the_autoscaler_over(tmp_path: Path) -> None:
    found = rendered(tmp_path, Rollout("argo"))
    spec = found["Rollout", "hone"]["spec"]
    assert spec["workloadRef"]["name"] == found["Deployment", "hone"]["metadata"]["name"]
    assert found["HorizontalPodAutoscaler", "hone"]["spec"]["scaleTargetRef"]["kind"] == "Rollout"
    used = {one["templateName"] for step in spec["strategy"]["canary"]["steps"] if "analysis" in step
            for one in step["analysis"]["templates"]}  # fmt: skip
    assert used == {"hone-canary"}
    for metric in found["AnalysisTemplate", "hone-canary"]["spec"]["metrics"]:
        # No figures are no success: the analysis ends inconclusive, and the rollout pauses.
        assert metric["successCondition"].startswith("len(result) > 0 && ")


@needs_kubectl
def test_flagger_writes_the_service_and_the_route_and_its_pods_can_be_reached(tmp_path: Path) -> None:
    found = rendered(tmp_path, Rollout("flagger"))
    assert ("Service", "hone") not in found
    assert ("HTTPRoute", "hone") not in found
    primary = {**pods_of(found["Deployment", "hone"]), "app.kubernetes.io/name": "hone-primary"}
    assert selects(found["NetworkPolicy", "hone"]["spec"]["podSelector"], primary)
    assert selects(found["PodMonitor", "hone"]["spec"]["selector"], primary)
    outside = [next(iter(one["uri"].values())) for one in found["Canary", "hone"]["spec"]["service"]["match"]]
    assert "/predict" in outside
    assert not any(path.startswith(("/metrics", "/v2/repository", "/v2/rollout")) for path in outside)


@pytest.mark.parametrize(
    ("kind", "components", "words"),
    [
        ("helm", (), "no 'helm'"),
        ("argo", ("keda",), "leave keda out"),
        ("gateway", ("ingress",), "leave the ingress out"),
    ],
)
def test_what_doesnt_go_together_writes_nothing(
    tmp_path: Path, kind: str, components: tuple[str, ...], words: str
) -> None:
    with pytest.raises(HoneError, match=words):
        rendered(tmp_path, Rollout(kind), *components)
    assert not (tmp_path / "deploy").exists()
    with pytest.raises(HoneError, match="a new version is a new image"):
        Rollout("argo", IMAGE)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_queries_tell_a_worse_version_from_an_equal_one(tmp_path: Path) -> None:
    """Prometheus' own evaluation of series: 1 % of the canary's requests fail, or as few as of the others."""
    pods = {"canary": "hone-new-.*", "stable": "hone-old-.*"}
    events = questions(0.02, "120s")[0][1]
    rules = [{"record": name, "expr": difference(events, pods, "120s", side=side)} for name, side in SIDES.items()]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "canary", "rules": rules}]}))
    tests = [scenario(failing, lower, upper) for failing, lower, upper in ((20, True, True), (1, False, False))]
    (tmp_path / "tests.yaml").write_text(json.dumps({"rule_files": ["rules.yaml"], "tests": tests}))
    done = subprocess.run(
        ["promtool", "test", "rules", "tests.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


SIDES = {"lower": -1, "upper": 1}


def scenario(failing: int, worse: bool, over: bool) -> dict[str, Any]:
    """Return a test of Prometheus: of 1,000 requests a minute of the canary so many fail, of 9,000 others ten do."""
    series = [
        {"series": f'{name}{{namespace="hone",pod="hone-{pod}-1"{more}}}', "values": f"0+{step}x30"}
        for name, pod, more, step in (
            ("hone_request_seconds_count", "new", "", 1000),
            ("hone_request_seconds_count", "old", "", 9000),
            ("hone_requests_total", "new", ',status="500"', failing),
            ("hone_requests_total", "old", ',status="500"', 10),
        )
    ]
    expect = [
        {"expr": f"lower > bool 0 == {int(worse)}", "eval_time": "20m", "exp_samples": [{"value": int(worse)}]},
        {"expr": f"upper > bool 0.01 == {int(over)}", "eval_time": "20m", "exp_samples": [{"value": int(over)}]},
    ]
    return {"interval": "1m", "input_series": series, "promql_expr_test": expect}


def test_slow_answers_are_counted_by_a_bucket_that_there_is() -> None:
    for limit_s in (0.0001, 0.02, 0.05, 3.0, 60.0):
        _, slow, _ = questions(limit_s, "120s")[1]
        assert float(slow.partition('le="')[2].partition('"')[0]) in SECONDS
