"""What goes into an image: the build context, its bill of materials, and every wrong argument."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from hone import store
from hone.cli.main import cli
from hone.errors import ArtifactError, HoneError, UnavailableError
from hone.k8s.tools.build_context import write_context
from hone.k8s.tools.containerize import containerize
from hone.k8s.tools.engines import build_command, find_engine
from hone.k8s.tools.packing import KINDS, Packing, Request
from hone.k8s.tools.sbom import bill_of_materials, read_lock
from tests.models.dense import dense_artifact

pytest.importorskip("cyclonedx")
IMAGE = Path(__file__).parents[2] / "k8s" / "image"


@pytest.fixture
def entry(tmp_path: Path) -> store.Entry:
    return store.put(dense_artifact(tmp_path / "a", name="digits"), "digits", "onnx-fp32-1")


def context(folder: Path, entry: store.Entry, **options: Any) -> dict[str, Any]:
    return write_context(folder, Request("digits", **options), alone(entry))


def alone(entry: store.Entry) -> Packing:
    return Packing((entry.name,), (entry,), ())


def test_context_holds_code_model_lock_and_bill(tmp_path: Path, entry: store.Entry) -> None:
    facts = context(tmp_path / "context", entry)
    build = tmp_path / "context" / "build"
    assert (build / "bento" / "models" / "digits" / "onnx-fp32-1" / "model.onnx").is_file()
    assert (build / "bento" / "src" / "hone" / "services" / "model.py").is_file()
    assert not list((build / "bento" / "src").rglob("converters"))
    assert not list(build.rglob("__pycache__"))
    record = yaml.safe_load((build / "bento" / "bento.yaml").read_text())
    assert [model["tag"] for service in record["services"] for model in service["models"]] == ["digits:onnx-fp32-1"]
    assert (build / "requirements.lock").read_text() == (IMAGE / "cpu.lock").read_text()
    labels = facts["labels"]
    assert labels["dev.hone.models"] == "digits:onnx-fp32-1"
    assert labels["dev.hone.digests"] == f"sha256:{entry.opened().digest}"


def test_same_model_gives_the_same_context(tmp_path: Path, entry: store.Entry) -> None:
    for name in ("one", "two"):
        context(tmp_path / name, entry)
    first = {p.relative_to(tmp_path / "one"): p.read_bytes() for p in (tmp_path / "one").rglob("*") if p.is_file()}
    second = {p.relative_to(tmp_path / "two"): p.read_bytes() for p in (tmp_path / "two").rglob("*") if p.is_file()}
    assert first == second


def test_bill_of_materials_is_valid_and_complete(tmp_path: Path, entry: store.Entry) -> None:
    context(tmp_path / "context", entry)
    text = (tmp_path / "context" / "build" / "sbom.cdx.json").read_text()
    content = json.loads(text)
    assert (content["bomFormat"], content["specVersion"]) == ("CycloneDX", "1.6")
    parts = {part["name"]: part for part in content["components"]}
    assert parts["onnxruntime"]["purl"] == "pkg:pypi/onnxruntime@1.31.1"
    assert parts["onnxruntime"]["hashes"]
    assert parts["digits"]["type"] == "machine-learning-model"
    assert parts["digits"]["hashes"][0]["content"] == entry.opened().digest
    assert {package.name for package in read_lock(IMAGE / "cpu.lock")} <= set(parts)
    try:
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator

        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    except Exception as error:
        if "MissingOptionalDependency" not in type(error).__name__:
            raise
    again = bill_of_materials(
        {"org.opencontainers.image.title": "x", "org.opencontainers.image.version": "1"}, [], [entry], 0
    )
    assert json.loads(again)["metadata"]["timestamp"].startswith("1970-01-01")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_locks_pin_every_package_by_hash(kind: str) -> None:
    packages = {package.name: package for package in read_lock(IMAGE / f"{kind}.lock")}
    assert "dumb-init" in packages and "bentoml" in packages
    assert not {"torch", "tensorflow", "tensorflow-cpu", "uv", "pip", "onnx"} & set(packages)
    gpu = kind in ("cuda", "tensorrt")
    assert ("onnxruntime" in packages) != gpu
    assert ("onnxruntime-gpu" in packages) == gpu
    assert ("openvino" in packages) == (kind == "openvino")
    assert ("tensorrt" in packages) == (kind == "tensorrt")


def test_cpu_lock_has_the_versions_of_the_bentofile() -> None:
    packages = {package.name: package.version for package in read_lock(IMAGE / "cpu.lock")}
    pins = yaml.safe_load((IMAGE.parents[1] / "bentofile.yaml").read_text())["python"]["packages"]
    for pin in pins:
        name, _, version = pin.partition("==")
        assert packages[name] == version


def test_lock_without_hashes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.lock").write_text("numpy==2.4.6\n")
    with pytest.raises(HoneError, match="numpy has no hash"):
        read_lock(tmp_path / "a.lock")


def test_wheels_that_are_missing_are_named(tmp_path: Path, entry: store.Entry) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "numpy-1.0-py3-none-any.whl").write_bytes(b"")
    with pytest.raises(HoneError, match=r"lacks .*; fill it with: hone k8s wheels --kind cpu --out"):
        context(tmp_path / "context", entry, wheels=tmp_path / "wheels")


def test_folder_that_is_not_empty_is_left_alone(tmp_path: Path, entry: store.Entry) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "mine").write_text("x")
    with pytest.raises(HoneError, match="is not empty"):
        context(tmp_path / "context", entry)


def test_missing_certificate_is_named(tmp_path: Path, entry: store.Entry) -> None:
    with pytest.raises(HoneError, match=r"--ca: .* does not exist"):
        context(tmp_path / "context", entry, ca=tmp_path / "none.pem")


def test_certificate_and_mirror_reach_the_first_stage_only(
    tmp_path: Path, entry: store.Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_CERT", raising=False)
    (tmp_path / "ca.pem").write_text("certificate")
    request = Request("digits", ca=tmp_path / "ca.pem", index_url="https://mirror.example.com/simple")
    facts = write_context(tmp_path / "context", request, alone(entry))
    assert (tmp_path / "context" / "build" / "ca.pem").read_text() == "certificate"
    command = build_command("buildah", "t:1", request, facts, tmp_path / "context")
    assert "PIP_INDEX_URL=https://mirror.example.com/simple" in command
    final = (IMAGE / "Containerfile").read_text().split("\nFROM ")[-1]
    assert "PIP_" not in final and "/build" not in final


@pytest.mark.parametrize("engine", ["docker", "podman", "buildah"])
def test_each_engine_gets_labels_and_arguments(tmp_path: Path, engine: str) -> None:
    facts = {"labels": {"a": "b c"}, "epoch": 7, "served": ("digits", "wine")}
    command = build_command(engine, "t:1", Request("digits", base="mine:1", wheels=tmp_path), facts, tmp_path)
    assert command[0] == engine
    assert "MODEL=digits" in command and "MODELS=wine" in command
    assert "BASE=mine:1" in command and "a=b c" in command and "SOURCE_DATE_EPOCH=7" in command
    assert not [part for part in command if part.startswith("PIP_")]


def test_corrupt_artifact_gets_into_no_image(tmp_path: Path, entry: store.Entry) -> None:
    (entry.path / "model.onnx").write_bytes(b"broken")
    with pytest.raises(ArtifactError, match=r"model\.onnx: corrupt"):
        containerize(Request("digits"), lambda _: None, tmp_path / "context")
    assert not (tmp_path / "context").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tag", "Bad Name"], "is no image name"),
        (["--label", "team"], "is not NAME=VALUE"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, entry: store.Entry, arguments: list[str], words: str) -> None:
    answer = CliRunner().invoke(cli, ["containerize", "digits", "--context", str(tmp_path / "c"), *arguments])
    assert answer.exit_code != 0
    assert words in answer.output


def test_missing_engine_is_told_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(UnavailableError, match=r"no container engine is installed and running; .* --context DIR"):
        find_engine()


def test_engine_that_does_not_answer_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, status in (("docker", 1), ("podman", 0)):
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\nexit {status}\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_engine() == "podman"
    assert find_engine("docker") == "docker"


def test_context_says_how_to_build_it(tmp_path: Path, entry: store.Entry) -> None:
    said: list[str] = []
    containerize(Request("digits"), said.append, tmp_path / "my context")
    command = shlex.split(said[-1].partition("build it with: ")[2])
    assert command[:2] == ["buildah", "build"]
    assert command[-1] == str(tmp_path / "my context")
