"""`hone k8s simulate` and what `hone k8s render` makes of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from hone.cli.main import cli
from hone.errors import HoneError
from hone.k8s.numbers import autoscaler_of, numbers_of
from hone.k8s.tools.cluster import manifests
from hone.k8s.tools.render import render
from tests.capacities import capacity, trial

IMAGE = "registry.example.com/hone/digits@sha256:" + "a" * 64
POD = {"capacity_rps": 120, "latency_s": 0.006, "cpu_cores": 1.5, "start_s": 20}
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("capacity.json").write_text(capacity().model_dump_json())
    Path("pod.json").write_text(json.dumps(POD))


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["k8s", "simulate", *arguments])


def object_of(**spec: Any) -> dict[str, Any]:
    item = autoscaler_of(None)
    item["spec"] |= spec
    return item


def resource(name: str, value: str) -> dict[str, Any]:
    return {"type": "Resource", "resource": {"name": name, "target": {"averageValue": value}}}


def test_file_holds_every_step_and_sums_that_follow_from_them() -> None:
    lines = "".join(f"{100 + 30 * at},{200 if at < 20 else 900}\n" for at in range(60))
    Path("load.csv").write_text("t,rate\n" + lines)
    Path("hpa.yaml").write_text(yaml.safe_dump(object_of(minReplicas=3, maxReplicas=12)))
    result = simulate("--pod", "pod.json", "--trace", "load.csv", "--autoscaler", "hpa.yaml", "--out", "out/run.json")
    assert result.exit_code == 0, result.output
    found = json.loads(Path("out/run.json").read_text())
    assert [step["t"] for step in found["steps"][:3]] == [100, 115, 130]
    assert set(found["steps"][0]) == {"t", "rate", "desired", "ready", "violating"}
    assert {step["rate"] for step in found["steps"]} == {200, 900}
    assert found["violation_minutes"] == sum(step["violating"] for step in found["steps"]) / 4 > 0
    assert found["pod_hours"] == pytest.approx(sum(step["desired"] for step in found["steps"]) / 240, abs=1e-4)
    assert all(3 <= step["desired"] <= 12 for step in found["steps"])
    assert f"{found['violation_minutes']:.1f} of 30 minutes outside the SLO" in result.output
    assert Path("out/run.svg").read_text().startswith("<svg")


def test_capacity_gives_the_pod_the_autoscaler_and_with_prices_the_cost() -> None:
    arguments = ("--capacity", "capacity.json", "--trace", "burst", "--peak", "5000", "--out", "run.json")
    result = simulate(*arguments, "--cpu-hour", "0.04", "--gb-hour", "0.005")
    assert result.exit_code == 0, result.output
    found = json.loads(Path("run.json").read_text())
    assert found["autoscaler"]["maxReplicas"] == 9  # 5000 / 700 and one more
    assert found["autoscaler"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 52
    assert found["pod"] == {"capacity_rps": 1000, "latency_s": 0.006, "cpu_cores": 1.5, "start_s": 4, "rows": 1}
    assert found["cost"] == pytest.approx(found["pod_hours"] * (2 * 0.04 + 0.536870912 * 0.005), rel=1e-3)


def test_same_call_gives_the_same_files() -> None:
    for name in ("a.json", "b.json"):
        assert simulate("--pod", "pod.json", "--trace", "ramp", "--out", name).exit_code == 0
    assert Path("a.json").read_bytes() == Path("b.json").read_bytes()
    assert Path("a.svg").read_bytes() == Path("b.svg").read_bytes()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("", "load.csv: the first line has to name the columns t,rate, not ''"),
        ("seconds,load\n1,2\n", "has to name the columns t,rate, not 'seconds,load'"),
        ("t,rate\n", "load.csv: no rows; give seconds and requests per second"),
        ("t,rate\n0,5\n", "load.csv: one row; give at least two"),
        (
            "t,rate\n0,5\n60,5\n180,5\n",
            "load.csv:4: a hole: t goes from 60 to 180, where the first rows are 60 s apart",
        ),
        ("t,rate\n0,5\n60,\n120,5\n", "load.csv:3: rate is '', not a number; a trace has no holes"),
        ("t,rate\n0,5\n60,nan\n", "load.csv:3: rate is 'nan', not a number"),
        ("t,rate\n0,5\n60,5\n30,5\n", "load.csv:4: t goes from 60 to 30; it has to grow"),
        ("t,rate\n0,5\n0,5\n", "load.csv:3: t goes from 0 to 0; it has to grow"),
        ("t,rate\n0,5\n60,-1\n", "load.csv:3: rate is -1; give the requests per second that arrive, more than 0"),
        ("t,rate\n0,0\n60,0\n", "load.csv:2: rate is 0; give the requests per second that arrive, more than 0"),
        ("t,rate\n0,5\n1e9,5\n", "load.csv: 23,148 days; at most 31 are simulated at once"),
        ("t,rate\n0,soon\n", "load.csv:2: rate is 'soon', not a number"),
    ],
)
def test_wrong_trace_is_one_line_with_its_place(rows: str, words: str) -> None:
    Path("load.csv").write_text(rows)
    refused(words, "--pod", "pod.json", "--trace", "load.csv")


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (object_of(metrics=[]), "hpa.yaml: spec.metrics: no metrics, so nothing would be scaled on"),
        (object_of(metrics=None), "hpa.yaml: spec.metrics: no metrics"),
        (object_of(minReplicas=5, maxReplicas=3), "hpa.yaml: spec.minReplicas 5 is more than maxReplicas 3"),
        (object_of(maxReplicas="many"), "spec.maxReplicas: has to be a whole number of at least 1, not 'many'"),
        (object_of(metrics=[{"type": "Cheese"}]), "hpa.yaml: spec.metrics[0].type: 'Cheese' is not one of Resource"),
        (object_of(behavior={"scaleUp": {"selectPolicy": "Most"}}), "selectPolicy: 'Most' is not one of Max, Min"),
        (
            object_of(metrics=[resource("memory", "1Gi")]),
            "the Resource metric 'memory' can't be simulated",
        ),
        (
            object_of(metrics=[resource("cpu", "much")]),
            "target.averageValue: 'much' is not a quantity",
        ),
        (object_of(behavior={"scaleUp": {"policies": 5}}), "scaleUp.policies: has to be a list, not '5'"),
        (
            object_of(behavior={"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 1801}]}}),
            "scaleUp.policies[0].periodSeconds: is 1,801; Kubernetes takes 1,800 at most: give so many, or fewer",
        ),
        (
            object_of(behavior={"scaleDown": {"stabilizationWindowSeconds": 3601}}),
            "scaleDown.stabilizationWindowSeconds: is 3,601; Kubernetes takes 3,600 at most",
        ),
        ({"kind": "Deployment"}, "hpa.yaml: holds no HorizontalPodAutoscaler(s); give a file with one"),
        ({**object_of(), "apiVersion": "autoscaling/v1"}, "'autoscaling/v1'; only autoscaling/v2 is known"),
    ],
)  # fmt: skip
def test_wrong_autoscaler_is_one_line_with_its_field(item: dict[str, Any], words: str) -> None:
    Path("hpa.yaml").write_text(yaml.safe_dump(item))
    refused(words, "--pod", "pod.json", "--trace", "step", "--autoscaler", "hpa.yaml")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"capacity": 5}, "capacity: Extra inputs are not permitted"),
        ({"capacity_rps": 0}, "capacity_rps: Input should be greater than 0"),
        ({"start_s": -1}, "start_s: Input should be greater than or equal to 0"),
        ({"latency_s": None}, "latency_s: Input should be a valid number"),
    ],
)
def test_wrong_pod_is_one_line_with_its_field(changes: dict[str, Any], words: str) -> None:
    Path("pod.json").write_text(json.dumps({**POD, **changes}))
    refused(words, "--pod", "pod.json", "--trace", "step")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--trace", "stp", "--pod", "pod.json"), "--trace: 'stp' is neither a file nor a shape; did you mean 'step'?"),
        (("--trace", "none.csv", "--pod", "pod.json"), "none.csv: No such file or directory"),
        (("--trace", "step", "--pod", "none.json"), "none.json: No such file or directory"),
        (("--trace", "step", "--capacity", "none.json"), "none.json: no such file"),
        (("--trace", "step", "--pod", "pod.json", "--autoscaler", "none.yaml"), "none.yaml: No such file or directory"),
        (("--trace", "step", "--pod", "pod.json", "--gb-hour", "1"), "a pod file says nothing of memory"),
        (("--trace", "step", "--pod", "pod.json", "--kubernetes", "new"), "'new' is not a release, such as 1.33"),
        (("--trace", "step", "--pod", "pod.json", "--window", "20"), "--window: a rate needs two scrapes"),
        (("--trace", "day", "--pod", "pod.json", "--rate", "500", "--peak", "100"),
         "--peak: 100 is less than the lowest rate, 500; give more"),
        (("--trace", "step", "--pod", "pod.json", "--component", "redis"), "'redis' doesn't change the autoscaler"),
        (("--trace", "step", "--pod", "pod.json", "--component", "memory-hpa"), "is not simulated; leave them out"),
        (("--trace", "step", "--pod", "pod.json", "--out", "run.txt"), "'run.txt' has to end with .json"),
        (("--trace", "step", "--pod", "pod.json", "--peak", "9000", "--budget", "1", "--write", "f.yaml"),
         "--budget: 1 minutes can't be kept"),
    ],
)  # fmt: skip
def test_wrong_argument_is_one_line(arguments: tuple[str, ...], words: str) -> None:
    refused(words, *arguments)


def test_capacity_without_processor_and_start_is_refused() -> None:
    Path("capacity.json").write_text(capacity(ready_s=None, repeats=[trial(cpu_cores=None)]).model_dump_json())
    refused("processor and start were not measured", "--capacity", "capacity.json", "--trace", "step")


def refused(words: str, *arguments: str) -> None:
    before = sorted(Path().iterdir())
    result = simulate(*arguments, *(() if "--out" in arguments else ("--out", "run.json")))
    assert result.exit_code == 1, result.output
    assert words in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert sorted(Path().iterdir()) == before


def test_pod_or_capacity_is_asked_for() -> None:
    for arguments in ((), ("--pod", "pod.json", "--capacity", "capacity.json")):
        result = simulate("--trace", "step", *arguments)
        assert result.exit_code == 2
        assert "give --capacity or --pod" in result.output


@needs_kubectl
def test_render_takes_what_was_found() -> None:
    given = ("--capacity", "capacity.json", "--trace", "burst", "--rate", "1000", "--peak", "5000")
    given += ("--component", "in-flight-hpa")
    result = simulate(*given, "--budget", "3", "--write", "found.yaml")
    assert result.exit_code == 0, result.output
    found = yaml.safe_load(Path("found.yaml").read_text())["spec"]
    components = ("in-flight-hpa",)
    file = Path("capacity.json")
    render("digits", "digits:onnx-fp32-1", IMAGE, file, Path("deploy"), peak=None, components=components,
           autoscaler=Path("found.yaml"))  # fmt: skip
    (spec,) = [item["spec"] for item in manifests(Path("deploy")) if item["kind"] == "HorizontalPodAutoscaler"]
    assert spec == found
    assert "| minReplicas | 2 | found.yaml, given with --autoscaler |" in Path("deploy/numbers.md").read_text()
    again = simulate(*given, "--autoscaler", "found.yaml")
    assert again.output.splitlines()[0] in result.output


def test_longest_period_and_window_of_the_api_are_taken() -> None:
    policy = {"type": "Pods", "value": 1, "periodSeconds": 1800}
    rules = {"stabilizationWindowSeconds": 3600, "policies": [policy]}
    Path("hpa.yaml").write_text(yaml.safe_dump(object_of(behavior={"scaleUp": rules, "scaleDown": rules})))
    assert simulate("--pod", "pod.json", "--trace", "step", "--autoscaler", "hpa.yaml").exit_code == 0


def test_metric_of_pods_that_nothing_provides_is_refused() -> None:
    """prometheus-adapter has a rule for rows in flight alone; on anything else the autoscaler would stand still."""
    pods = {"metric": {"name": "hone_requests_per_second"}, "target": {"type": "AverageValue", "averageValue": "100"}}
    item = object_of()
    item["spec"]["metrics"].append({"type": "Pods", "pods": pods})
    Path("hpa.yaml").write_text(yaml.safe_dump(item))
    words = (
        r"hpa\.yaml: spec\.metrics\[1\]\.pods: nothing provides 'hone_requests_per_second', so it would never scale; "
        r"take hone_in_flight_rows, or add a rule for it to k8s/monitoring/prometheus-adapter\.yaml"
    )
    with pytest.raises(HoneError, match=words):
        render("digits", "digits:onnx-fp32-1", IMAGE, Path("capacity.json"), Path("deploy"), peak=None, components=(),
               autoscaler=Path("hpa.yaml"))  # fmt: skip
    assert not Path("deploy").exists()


@needs_kubectl
@pytest.mark.parametrize(
    "components", [("memory-hpa",), ("memory-hpa", "in-flight-hpa"), ("in-flight-hpa", "memory-hpa")]
)
def test_memory_target_is_above_what_is_in_use(components: tuple[str, ...]) -> None:
    """300 MiB of 512 are in use at the measured rate: a target below that would add pods until there are no more."""
    file = Path("capacity.json")
    numbers = numbers_of(capacity(), "digits:onnx-fp32-1", file, 7000)
    assert numbers.memory_target == 79
    render("digits", "digits:onnx-fp32-1", IMAGE, file, Path("deploy"), peak=7000, components=components)
    (spec,) = [item["spec"] for item in manifests(Path("deploy")) if item["kind"] == "HorizontalPodAutoscaler"]
    assert spec == autoscaler_of(numbers, components)["spec"]
    (memory,) = [each["resource"] for each in spec["metrics"] if each.get("resource", {}).get("name") == "memory"]
    assert memory["target"] == {"type": "Utilization", "averageUtilization": 79}
    page = Path("deploy/numbers.md").read_text()
    assert "Without memory, of which it isn't known how it follows the load." in page
    assert "| memory utilization target | 79 % |" in page


def test_autoscaler_on_memory_alone_is_not_simulated() -> None:
    target = {"type": "Utilization", "averageUtilization": 80}
    memory = {"type": "Resource", "resource": {"name": "memory", "target": target}}
    Path("hpa.yaml").write_text(yaml.safe_dump(object_of(metrics=[memory])))
    render("digits", "digits:onnx-fp32-1", IMAGE, Path("capacity.json"), Path("deploy"), peak=None, components=(),
           autoscaler=Path("hpa.yaml"))  # fmt: skip
    page = Path("deploy/numbers.md").read_text()
    assert "Not simulated: how memory follows the load isn't known." in page
    assert "| memory utilization target | 80 % | hpa.yaml, given with --autoscaler |" in page
    assert "| cpu utilization target | 52 % |" in page


@needs_kubectl
@pytest.mark.parametrize("release", [None, (1, 35)])
@pytest.mark.parametrize("components", [(), ("in-flight-hpa",)])
def test_simulated_autoscaler_is_the_rendered_one(components: tuple[str, ...], release: tuple[int, int] | None) -> None:
    file = Path("capacity.json")
    numbers = numbers_of(capacity(), "digits:onnx-fp32-1", file, 7000)
    render(
        "digits", "digits:onnx-fp32-1", IMAGE, file, Path("deploy"), peak=7000, components=components, release=release
    )
    (spec,) = [item["spec"] for item in manifests(Path("deploy")) if item["kind"] == "HorizontalPodAutoscaler"]
    assert spec == autoscaler_of(numbers, components, release)["spec"]
    assert ("tolerance" in spec["behavior"]["scaleUp"]) == (release is not None)
    page = Path("deploy/numbers.md").read_text()
    assert "| start | 4 s | measured, from start to ready" in page
    assert f"| tolerance | {'5' if release else '10'}% |" in page
    assert ("| window | 60 s |" in page) == bool(components)
    assert "s outside the SLO | simulated; 2 → " in page


def test_kedas_autoscaler_is_simulated_as_keda_makes_it() -> None:
    result = simulate("--capacity", "capacity.json", "--trace", "step", "--peak", "7000", "--component", "keda",
                      "--out", "run.json")  # fmt: skip
    assert result.exit_code == 0, result.output
    metrics = json.loads(Path("run.json").read_text())["autoscaler"]["metrics"]
    assert [metric["type"] for metric in metrics] == ["Resource", "External"]
    assert metrics[1]["external"]["target"] == {"type": "AverageValue", "averageValue": "4200m"}
