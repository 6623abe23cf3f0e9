"""Manifests for KServe: they fit its definitions strictly, and what the base has around its pods finds KServe's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hone.errors import HoneError
from hone.k8s.tools.cluster import manifests
from hone.k8s.tools.kserve.objects import GOES_WITH
from hone.k8s.tools.render import render
from hone.k8s.tools.rollouts.kinds import Rollout
from tests.capacities import capacity
from tests.cluster import LARGE, ControlPlane, define, definitions
from tests.k8s.test_control_plane import accepted
from tests.k8s.test_rollouts import IMAGE, TAG, Objects, needs_crds, schema_of, selects
from tests.plans import plan

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


def rendered(folder: Path, *components: str, **more: Any) -> Path:
    file = folder / "capacity.json"
    file.write_text(capacity(model=TAG, digest=plan().digest, plan=plan()).model_dump_json())
    render("digits", TAG, IMAGE, file, folder / "deploy", peak=3000, components=components, **more)
    return folder / "deploy"


def objects_of(folder: Path) -> Objects:
    return {(item["kind"], item["metadata"]["name"]): item for item in manifests(folder)}


@needs_kubectl
@needs_crds
@pytest.mark.slow  # the definition is 2 MB
def test_objects_fit_kserves_definitions_strictly(tmp_path: Path) -> None:
    found = objects_of(rendered(tmp_path, *GOES_WITH, kserve="Standard"))
    for item in (found["InferenceService", "hone"], found["ServingRuntime", "hone"]):
        fits = jsonschema.Draft202012Validator(schema_of(item))  # without a look at the schema itself, which takes long
        fits.validate(item)
        wrong = json.loads(json.dumps(item))
        wrong["spec"]["predicter"] = {}
        with pytest.raises(jsonschema.ValidationError):
            fits.validate(wrong)


@needs_kubectl
def test_mode_has_two_names(tmp_path: Path) -> None:
    service = objects_of(rendered(tmp_path, kserve="RawDeployment"))["InferenceService", "hone"]
    assert service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "RawDeployment"
    with pytest.raises(HoneError, match="no mode 'Serverless'; there are Standard, RawDeployment"):
        rendered(tmp_path, kserve="Serverless")


@needs_kubectl
def test_pods_of_kserve_are_the_measured_ones_and_are_found(tmp_path: Path) -> None:
    found = objects_of(rendered(tmp_path, "metrics", kserve="Standard"))
    assert not {kind for kind, _ in found} & {"Deployment", "Service"}
    predictor = found["InferenceService", "hone"]["spec"]["predictor"]
    assert "storageUri" not in predictor["model"]  # the model is in the image
    (container,) = found["ServingRuntime", "hone"]["spec"]["containers"]
    assert (container["image"], container["resources"]["limits"]["memory"]) == (IMAGE, "512Mi")
    settings = container["envFrom"][0]["configMapRef"]["name"]
    assert json.loads(found["ConfigMap", settings]["data"]["HONE_PLAN"])["workers"] == plan().workers
    scaler = found["HorizontalPodAutoscaler", "hone"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == "hone-predictor"
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (scaler["minReplicas"], scaler["maxReplicas"])
    for kind, field in (
        ("NetworkPolicy", "podSelector"),
        ("PodDisruptionBudget", "selector"),
        ("PodMonitor", "selector"),
    ):
        assert selects(found[kind, "hone"]["spec"][field], predictor["labels"]), kind
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in predictor["volumes"]}


@pytest.mark.parametrize("component", ["grpc", "keda", "loadbalancer"])
def test_components_of_the_deployment_and_the_service_are_refused(tmp_path: Path, component: str) -> None:
    with pytest.raises(
        HoneError, match=f"--kserve: the Deployment and the Service are KServe's; leave {component} out"
    ):
        rendered(tmp_path, component, kserve="Standard")
    with pytest.raises(HoneError, match="leave --rollout out"):
        rendered(tmp_path, kserve="Standard", rollout=Rollout("argo"))
    assert not (tmp_path / "deploy").exists()


@pytest.mark.slow
def test_server_takes_the_objects(control_plane: ControlPlane, tmp_path: Path) -> None:
    define(control_plane, [item for (group, _), item in definitions().items() if group == LARGE])
    accepted(control_plane, manifests(rendered(tmp_path, "in-flight-hpa", kserve="Standard")), "kserve")


@needs_kubectl
def test_load_balancer_has_the_grpc_port_too_and_lets_no_other_address_in(tmp_path: Path) -> None:
    found = objects_of(rendered(tmp_path, "grpc", "loadbalancer"))
    spec = found["Service", "hone"]["spec"]
    assert (spec["type"], spec["externalTrafficPolicy"]) == ("LoadBalancer", "Local")
    assert {port["name"]: port["port"] for port in spec["ports"]} == {"http": 80, "grpc": 9000}
    (rule,) = found["NetworkPolicy", "hone"]["spec"]["ingress"]
    blocks = [one["ipBlock"]["cidr"] for one in rule["from"] if "ipBlock" in one]
    assert blocks == spec["loadBalancerSourceRanges"]
    assert {port["port"] for port in rule["ports"]} == {"http", "grpc"}
    for kind in ("gateway", "flagger"):
        with pytest.raises(HoneError, match="leave the loadbalancer out"):
            Rollout(kind).components(("loadbalancer",))
