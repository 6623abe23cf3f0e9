"""The manifests: they render, fit the schemas of the oldest and newest Kubernetes, and keep their promises."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone.errors import HoneError
from hone.k8s.tools.cluster import manifests
from hone.k8s.tools.preflight import NEWEST, OLDEST
from hone.services.settings import Settings

K8S = Path(__file__).parents[2] / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (K8S / "components").iterdir())
VERSIONS = [f"{major}.{minor}.0" for major, minor in (OLDEST, NEWEST)]
FOREIGN = {"PodMonitor", "PrometheusRule", "ScaledObject", "Gateway", "HTTPRoute", "BackendTrafficPolicy"}
"""Kinds of other projects, whose schemas Kubernetes doesn't have."""

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


@cache
def rendered(overlay: str) -> list[dict[str, Any]]:
    return manifests(K8S / "overlays" / overlay)


def one(objects: list[dict[str, Any]], kind: str, name: str = "hone") -> dict[str, Any]:
    (found,) = [item for item in objects if item["kind"] == kind and item["metadata"]["name"] == name]
    return found


def settings_of(overlay: str) -> dict[str, str]:
    (found,) = [item["data"] for item in rendered(overlay) if item["metadata"]["name"].startswith("hone-settings")]
    return found


def pods(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [item["spec"]["template"]["spec"] for item in objects if item["kind"] == "Deployment"]


@needs_kubectl
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_fits_the_schemas_strictly(overlay: str, version: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    checked = 0
    for item in rendered(overlay):
        if item["kind"] not in FOREIGN:
            kubernetes_validate.validate(item, version, strict=True)
            checked += 1
    assert checked >= 9


@needs_kubectl
def test_schema_check_finds_a_misspelled_field() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    wrong = json.loads(json.dumps(one(rendered("cpu"), "Deployment")))
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


@needs_kubectl
@pytest.mark.parametrize("component", COMPONENTS)
def test_every_component_renders_with_the_base(tmp_path: Path, component: str) -> None:
    shutil.copytree(K8S / "base", tmp_path / "base")
    shutil.copytree(K8S / "components", tmp_path / "components")
    (tmp_path / "kustomization.yaml").write_text(f"resources: [base]\ncomponents: [components/{component}]\n")
    kinds = [item["kind"] for item in manifests(tmp_path)]
    assert "Deployment" in kinds
    # KEDA makes an autoscaler of its own; two of one Deployment would fight.
    assert ("HorizontalPodAutoscaler" in kinds) == (component not in ("keda", "scheduled-peaks"))
    assert kinds.count("ScaledObject") == (component in ("keda", "scheduled-peaks"))


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_restricted(overlay: str) -> None:
    objects = rendered(overlay)
    (namespace,) = [item for item in objects if item["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in pods(objects):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            for resource in ("cpu", "memory", "ephemeral-storage"):
                assert container["resources"]["requests"][resource] == container["resources"]["limits"][resource]


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_has_rights_in_the_cluster(overlay: str) -> None:
    kinds = {item["kind"] for item in rendered(overlay)}
    assert not kinds & {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}
    assert one(rendered(overlay), "ServiceAccount")["automountServiceAccountToken"] is False


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_their_pods_and_only_those(overlay: str) -> None:
    objects = rendered(overlay)
    templates = {
        item["metadata"]["name"]: item["spec"]["template"]["metadata"]["labels"]
        for item in objects
        if item["kind"] == "Deployment"
    }
    for item in objects:
        if item["kind"] == "Service":
            selector = item["spec"]["selector"]
        elif item["kind"] == "PodDisruptionBudget" or (item["kind"] == "NetworkPolicy" and item["spec"]["podSelector"]):
            selector = (item["spec"].get("selector") or item["spec"]["podSelector"])["matchLabels"]
        else:
            continue
        found = [name for name, labels in templates.items() if selector.items() <= labels.items()]
        assert found == [item["metadata"]["name"]]


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_names_its_own_image(overlay: str) -> None:
    container = one(rendered(overlay), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"].endswith(f"/digits:{overlay}")


@needs_kubectl
def test_settings_are_those_of_the_service() -> None:
    """A variable that no setting reads would be a promise that nothing keeps."""
    known = {f"HONE_{name.upper()}" for name in Settings.__dataclass_fields__} | {"HONE_CACHE"}
    for overlay in OVERLAYS:
        settings = settings_of(overlay)
        assert set(settings) <= known
        Settings.from_environment(settings)


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_shutdown_fits_into_the_grace_period(overlay: str) -> None:
    """Endpoints forget the pod, readiness goes off, what was accepted is answered: all before the kubelet kills it."""
    pod = pods(rendered(overlay))[0]
    sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    settings = Settings.from_environment(settings_of(overlay))
    ending = sleep + settings.drain_s + settings.stop_s
    assert ending + 5 <= pod["terminationGracePeriodSeconds"]
    # A request may use up its deadline, and is still answered.
    assert settings.answer_s >= settings.default_timeout_ms / 1e3


@needs_kubectl
@pytest.mark.parametrize(("overlay", "unavailable", "surge"), [("dev", 0, 1), ("cpu", 0, 1), ("cuda", 1, 0)])
def test_rollout_takes_pods_away_only_where_a_spare_one_is_too_dear(overlay: str, unavailable: int, surge: int) -> None:
    strategy = one(rendered(overlay), "Deployment")["spec"]["strategy"]
    assert strategy == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge},
    }
    # While one pod is away, another one serves.
    if overlay != "dev":
        assert one(rendered(overlay), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
        assert one(rendered(overlay), "HorizontalPodAutoscaler")["spec"]["minReplicas"] >= 2


@needs_kubectl
def test_development_overlay_has_no_keys_and_production_has() -> None:
    assert "keys" not in json.dumps(pods(rendered("dev")))
    for overlay in ("cpu", "cuda"):
        assert any(volume["name"] == "keys" for volume in pods(rendered(overlay))[0]["volumes"])


@needs_kubectl
def test_gpu_overlay_asks_for_one_and_keeps_engines() -> None:
    pod = pods(rendered("cuda"))[0]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"name": "engines", "mountPath": "/var/cache/hone"} in pod["containers"][0]["volumeMounts"]
    settings = settings_of("cuda")
    assert settings["HONE_CACHE"] == "/var/cache/hone"


@needs_kubectl
def test_overlay_that_does_not_render_is_named(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [nothing.yaml]\n")
    with pytest.raises(HoneError, match="doesn't render"):
        manifests(tmp_path)


@pytest.mark.slow
@needs_kubectl
def test_policy_scan_finds_nothing_unexplained(tmp_path: Path) -> None:
    import sys

    for overlay in OVERLAYS:
        (tmp_path / f"{overlay}.yaml").write_text(yaml.safe_dump_all(rendered(overlay)))
    environment = tmp_path / "venv"
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(environment)], check=True)
    install = [uv, "pip", "install", "-q", "--python", str(environment / "bin" / "python"), "checkov==3.3.30"]
    subprocess.run(install, check=True)
    command = [str(environment / "bin" / "checkov"), "--config-file", str(K8S / ".checkov.yaml"), "-d", str(tmp_path)]
    done = subprocess.run([*command, "-o", "json"], capture_output=True, text=True, timeout=250)
    report = json.loads(done.stdout)
    failed = [(check["check_id"], check["resource"]) for check in report["results"]["failed_checks"]]
    assert not failed
    assert report["summary"]["passed"] > 300
    # Each skipped check has its reason beside it.
    lines = (K8S / ".checkov.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        if line.strip().startswith("- CKV"):
            assert lines[number - 1].strip().startswith("#")
