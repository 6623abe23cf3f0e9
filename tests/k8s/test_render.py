from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hone import store
from hone.benchmarks.load.limits import parse_ms
from hone.capacity import Capacity, read_capacity
from hone.cli.main import cli
from hone.errors import HoneError
from hone.k8s.numbers import numbers_of
from hone.k8s.tools.cluster import manifests
from hone.k8s.tools.render import render
from hone.services.settings import Settings
from tests.capacities import capacity, trial
from tests.models.dense import dense_artifact
from tests.plans import plan

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
IMAGE = "registry.example.com/hone/digits@sha256:" + "a" * 64


def written(folder: Path, found: Capacity) -> Path:
    file = folder / "capacity.json"
    file.write_text(found.model_dump_json())
    return file


def test_numbers_follow_from_the_measurement() -> None:
    numbers = numbers_of(capacity(), "digits:onnx-fp32-1", Path("capacity.json"), peak=7000)
    assert numbers.cpu == 2  # 1.5 cores, in whole ones
    assert numbers.memory_mib == 512  # 300 x 1.35 + 64, in steps of 64
    assert numbers.cpu_target == 52  # 0.7 x 1.5 of 2
    assert numbers.in_flight == pytest.approx(4.2)
    assert numbers.startup_failures == 15
    assert numbers.maximum == 11  # 7000 / 700 and one more
    assert all(number.origin for number in numbers.sources)


def test_bounds_without_a_peak_are_the_bases_and_say_so() -> None:
    numbers = numbers_of(capacity(), "digits:onnx-fp32-1", Path("capacity.json"))
    assert numbers.maximum == 10
    assert "not measured, give --peak" in numbers.sources[-1].origin


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "digits:onnx-int8-1"}, "was measured for digits:onnx-int8-1, not for digits:onnx-fp32-1"),
        ({"ready_s": None}, "were not measured, because the service ran elsewhere"),
        ({"repeats": [trial(cpu_cores=None)]}, "were not measured"),
    ],
)
def test_what_was_not_measured_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(HoneError, match=words):
        numbers_of(capacity(**changes), "digits:onnx-fp32-1", Path("capacity.json"))


@needs_kubectl
@pytest.mark.parametrize("components", [(), ("in-flight-hpa", "redis", "ingress"), ("keda", "gateway", "metrics")])
def test_rendered_folder_stands_alone_and_has_the_numbers(tmp_path: Path, components: tuple[str, ...]) -> None:
    file = written(tmp_path, capacity())
    out = tmp_path / "deploy"
    render("digits", "digits:onnx-fp32-1", IMAGE, file, out, peak=7000, components=components)
    objects = {(item["kind"], item["metadata"]["name"]): item for item in manifests(out)}
    container = objects["Deployment", "hone"]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == IMAGE
    assert container["resources"]["limits"] == container["resources"]["requests"]
    assert container["resources"]["limits"]["memory"] == "512Mi"
    assert container["startupProbe"]["failureThreshold"] == 15
    (settings,) = [item["data"] for (_, name), item in objects.items() if name.startswith("hone-settings")]
    assert settings["HONE_WORKERS"] == "1"
    if "keda" in components:
        spec = objects["ScaledObject", "hone"]["spec"]
        assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 11)
        assert [
            trigger["metadata"].get("threshold") or trigger["metadata"]["value"] for trigger in spec["triggers"]
        ] == ["4.2", "52"]
    else:
        spec = objects["HorizontalPodAutoscaler", "hone"]["spec"]
        assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 11)
        assert spec["metrics"][0]["resource"]["target"]["averageUtilization"] == 52
        if components:
            assert spec["metrics"][1]["pods"]["target"]["averageValue"] == "4200m"
    assert "0.7 x 6 at the measured 1000 requests/s" in (out / "numbers.md").read_text()


@needs_kubectl
def test_pods_run_the_plan_that_was_measured(tmp_path: Path) -> None:
    measured = plan(workers=2, threads=4, inline=False)
    file = written(tmp_path, capacity(plan=measured, digest=measured.digest, workers=2))
    out = tmp_path / "deploy"
    render("digits", "digits:onnx-fp32-1", IMAGE, file, out, peak=None, components=(), digest=measured.digest)
    (pod,) = [item for item in manifests(out) if item["kind"] == "Deployment"]
    (container,) = pod["spec"]["template"]["spec"]["containers"]
    (name,) = [source["configMapRef"]["name"] for source in container["envFrom"]]
    (settings,) = [item["data"] for item in manifests(out) if item["metadata"]["name"] == name]
    service = Settings.from_environment({key: str(value) for key, value in settings.items()})
    assert service.given_plan == measured and service.workers == 2
    assert "| plan | pinned | plan.json: threads 4, batches of up to 32 rows" in (out / "numbers.md").read_text()


def test_capacity_without_a_plan_says_that_pods_measure_themselves(tmp_path: Path) -> None:
    """One that was written before services told their plan."""
    content = json.loads(capacity().model_dump_json(exclude={"plan", "image"}))
    file = tmp_path / "capacity.json"
    file.write_text(json.dumps(content))
    out = tmp_path / "deploy"
    render("digits", "digits:onnx-fp32-1", IMAGE, file, out, peak=None, components=())
    assert not (out / "plan.json").exists()
    assert "HONE_PLAN" not in (out / "kustomization.yaml").read_text()
    assert "| plan | none | each pod measures how it runs" in (out / "numbers.md").read_text()


def test_capacity_of_other_content_under_the_same_tag_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, capacity(digest="1" * 64))
    with pytest.raises(HoneError, match=r"capacity\.json: .* \(111111111111\), the stored one is 222222222222"):
        render("digits", "digits:onnx-fp32-1", IMAGE, file, tmp_path / "out", peak=None, components=(), digest="2" * 64)
    assert not (tmp_path / "out").exists()


@needs_kubectl
@pytest.mark.parametrize("image", [IMAGE, IMAGE.replace("@", ":1@"), IMAGE.replace("@", ":latest@")])
def test_image_by_digest_stays_that_image(tmp_path: Path, image: str) -> None:
    file = written(tmp_path, capacity())
    render("digits", "digits:onnx-fp32-1", image, file, tmp_path / "deploy", peak=None, components=())
    (pod,) = [item for item in manifests(tmp_path / "deploy") if item["kind"] == "Deployment"]
    assert pod["spec"]["template"]["spec"]["containers"][0]["image"].endswith("@sha256:" + "a" * 64)


@pytest.mark.parametrize(("spread", "warned"), [(0.1, False), (2.07, True)])
def test_noisy_measurement_comes_with_a_warning(tmp_path: Path, spread: float, warned: bool) -> None:
    file = written(tmp_path, capacity(spread=spread))
    render("digits", "digits:onnx-fp32-1", IMAGE, file, tmp_path / "deploy", peak=None, components=())
    assert ("quieter host" in (tmp_path / "deploy" / "numbers.md").read_text()) == warned


@pytest.mark.parametrize(
    ("image", "components", "words"),
    [
        ("registry.example.com/digits", (), "names no version"),
        ("UPPER/digits:1", (), "names no version"),
        ("registry.example.com:5000/digits", (), "names no version"),
        ("registry.example.com/digits:latest", (), "'registry.example.com/digits:latest' moves"),
        ("registry.example.com/digits:1", ("kedda",), "no 'kedda'; there are checks, drift, feedback, gateway, grpc"),
    ],
)
def test_wrong_arguments_write_nothing(tmp_path: Path, image: str, components: tuple[str, ...], words: str) -> None:
    file = written(tmp_path, capacity())
    with pytest.raises(HoneError, match=words):
        render("d", "digits:onnx-fp32-1", image, file, tmp_path / "deploy", peak=None, components=components)
    assert not (tmp_path / "deploy").exists()


def test_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    with pytest.raises(HoneError, match="exists; give a new folder"):
        render(
            "d",
            "digits:onnx-fp32-1",
            IMAGE,
            written(tmp_path, capacity()),
            tmp_path / "deploy",
            peak=None,
            components=(),
        )


@pytest.mark.parametrize("content", ["", "{}", json.dumps({"kind": "load"}), "[1]"])
def test_file_that_is_no_capacity_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(HoneError, match=r"c\.json: not a measured capacity"):
        read_capacity(tmp_path / "c.json")


def test_missing_capacity_names_the_command(tmp_path: Path) -> None:
    store.put(dense_artifact(tmp_path / "a", name="digits"), "digits", "onnx-fp32-1")
    arguments = ["k8s", "render", "digits", "--capacity", str(tmp_path / "none.json"), "--image", IMAGE]
    result = CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "deploy")])
    assert result.exit_code == 1
    assert "hone bench capacity MODEL --p99 50ms' writes one" in result.output


@pytest.mark.parametrize(("text", "wanted"), [("50ms", 50), ("0.2s", 200), ("75", 75), (" 1 s", 1000)])
def test_durations(text: str, wanted: float) -> None:
    assert parse_ms(text) == wanted


@pytest.mark.parametrize("text", ["", "fast", "-5ms", "0", "inf", "nan", "5m"])
def test_wrong_durations_are_named(text: str) -> None:
    with pytest.raises(HoneError, match=r"is no duration; write 50ms or 0\.2s"):
        parse_ms(text)
