"""The sequences of k8s/README.md, run as they stand there: to a cluster, and back after a disaster."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from hone import store
from hone.cli.main import cli
from hone.k8s.tools.cluster import manifests
from tests.capacities import capacity
from tests.cluster import ControlPlane, Nodes, for_server
from tests.models.dense import dense_artifact
from tests.servers import HONE, ROOT, put, server, use_store

README = (ROOT / "k8s" / "README.md").read_text()
IMAGE = ["--image", "registry.example.com/hone/digits:1"]


def steps(heading: str, block: int = 0) -> list[list[str]]:
    """Return the commands of a block below a heading, without comments."""
    section = README[README.index(f"## {heading}\n") :]
    text = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)[block]
    return [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]


def rendered(folder: Path, tag: str) -> None:
    """Render as the README says, from a capacity as it is measured; the image's record needs an image."""
    (folder / "out" / "digits").mkdir(parents=True)
    (folder / "out" / "digits" / "capacity.json").write_text(capacity(model=tag).model_dump_json())
    (step,) = [step for step in steps("From artifact to pods") if step[:3] == ["hone", "k8s", "render"]]
    at = step.index("--image-record")
    hone([*step[1:at], *IMAGE, *step[at + 2 :]])


def hone(arguments: list[str], status: int = 0) -> str:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == status, result.output
    return result.output


def run(cluster: ControlPlane, step: list[str], folder: Path) -> str:
    """Run a kubectl command; what an apply sends is rewritten for the old server."""
    if step[1:3] == ["apply", "-k"]:
        return cluster.apply(for_server(manifests(folder / step[3]))).stdout
    return cluster.kubectl(*step[1:]).stdout


@pytest.fixture
def clean(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """A control plane without the namespace `hone`."""
    control_plane.forget("hone")
    yield control_plane
    control_plane.kubectl("delete", "namespace", "hone", "--wait=false")


def test_sequence_pushes_before_pods_pull_and_checks_before_it_applies() -> None:
    verbs = [" ".join(step[:3]) for step in steps("From artifact to pods")]
    wanted = ["docker login", "hone containerize", "hone bench", "hone k8s render", "hone keys new", "kubectl create",
              "kubectl -n", "hone deploy preflight", "kubectl apply", "kubectl -n"]  # fmt: skip
    assert all(verb.startswith(start) for verb, start in zip(verbs, wanted, strict=True))
    assert "--push" in steps("From artifact to pods")[1]


@pytest.mark.slow
def test_sequence_ends_with_ready_pods(clean: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(clean.kubeconfig))
    tag = store.put(dense_artifact(tmp_path / "made", name="digits"), "digits", "onnx-fp32-1").tag
    rendered(tmp_path, tag)
    ran = steps("From artifact to pods")[4:]
    with Nodes(clean, "hone", "server") as nodes:
        nodes.add("readme-1")
        for step in ran:
            if step[0] == "kubectl":
                said = run(clean, step, tmp_path)
            elif step[1] == "deploy":
                # It exits with 1: this server is old, and measures nothing.
                said = hone(step[1:], 1)
                assert "ok       secret: 'hone-api-keys' is there" in said
                assert "ok       monitoring.coreos.com/v1" in said
            else:
                hone(step[1:])
        assert "successfully rolled out" in said
    (pod, *_) = clean.get("-n", "hone", "pods", "-l", "app.kubernetes.io/component=server")["items"]
    assert pod["spec"]["containers"][0]["image"] == IMAGE[1]
    (keys,) = [volume["secret"] for volume in pod["spec"]["volumes"] if volume["name"] == "keys"]
    secret = clean.get("-n", "hone", "secret", keys["secretName"])
    assert list(secret["data"]) == ["keys.yaml"]


@pytest.mark.slow
def test_autoscaler_is_simulated_and_searched_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "digits").mkdir(parents=True)
    (tmp_path / "out" / "digits" / "capacity.json").write_text(capacity().model_dump_json())
    simulated, searched = (hone(step[1:]) for step in steps("The autoscaler, simulated"))
    assert "0.0 of 1440 minutes outside the SLO" in simulated
    assert "cost" in simulated
    hours = [float(re.findall(r"([\d.]+) pod-hours", said)[0]) for said in (simulated, searched)]
    assert hours[1] < hours[0]
    assert (tmp_path / "autoscaler.yaml").is_file()


ROWS = {"inputs": {"features": [[0.1, -2, 3, 4], [5, 6, 7, 8]]}}


def answers(home: Path) -> dict[str, object]:
    with server([HONE, "serve", "digits", "--port", "{port}"], home) as running:
        answer = running.client.post("/predict", json=ROWS)
        assert answer.status_code == 200
        return dict(answer.json())


def disaster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Back up a home as the README says, lose it, and restore it elsewhere; return what was answered before."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    monkeypatch.chdir(first)
    entry = put(first / "home", first / "made", "digits", "onnx-fp32-1", seed=7)
    rendered(first, entry.tag)
    hone(["keys", "new", "my-app", "--file", "keys.yaml"])
    before = answers(first / "home")
    (first / "backups").mkdir()
    for step in steps("Disaster recovery"):
        hone(step[1:])
    assert len(list((first / "backups").iterdir())) == 1
    second.mkdir()
    shutil.move(first / "hone.tar.gz", second)
    shutil.rmtree(first)
    monkeypatch.chdir(second)
    use_store(second / "home")
    for step in steps("Disaster recovery", 1):
        if step[0] == "hone":
            hone(step[1:])
    return before


@pytest.mark.slow
def test_restored_store_answers_as_the_lost_one_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = disaster(tmp_path, monkeypatch)
    assert answers(tmp_path / "second" / "home") == before
    for name in ("keys.yaml", "out/digits/capacity.json", "deploy/kustomization.yaml", "deploy/numbers.md"):
        assert (tmp_path / "second" / name).is_file()


@pytest.mark.slow
def test_restored_manifests_bring_the_pods_back(
    clean: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disaster(tmp_path, monkeypatch)
    with Nodes(clean, "hone", "server") as nodes:
        nodes.add("recovery-1")
        said = [run(clean, step, Path()) for step in steps("Disaster recovery", 1) if step[0] == "kubectl"]
    assert "successfully rolled out" in said[-1]
