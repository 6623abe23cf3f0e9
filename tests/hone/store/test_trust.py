"""Artifacts that bring code: they come in and run when somebody who is trusted says so, and not otherwise."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hone import runtimes, store
from hone.artifact import Artifact, Manifest, Selection, seal
from hone.cli.main import cli
from hone.errors import ArtifactError
from hone.services.models.loading import load
from hone.services.settings import Settings
from hone.store import archive
from hone.store.trust import Admission, Policy, TrustError, is_trusted_here, open_to_run, refusal
from tests.hone.store.test_signing import key_pair
from tests.models.dense import dense_artifact, dense_signature


def hone(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def coded(folder: Path, runtime: str, entry: str, **options: Any) -> Artifact:
    """An artifact of a runtime, with a module beside it that leaves a mark when it is imported."""
    folder.mkdir()
    mark = folder.parent / "PWNED"
    (folder / "evilmod.py").write_text(f"open({str(mark)!r}, 'w')\n\ndef model():\n    raise SystemExit\n")
    (folder / entry).write_bytes(b"x")
    manifest = Manifest(
        name="evil",
        runtime=runtime,
        precision="fp32",
        entry=entry,
        signature=dense_signature(),
        runtime_options=options,
        selection=Selection(run="1", rank=0, eligible=True),
    )
    return seal(folder, manifest)


def exported(tmp_path: Path, artifact: Artifact) -> Path:
    """The archive that another host would send; nothing of it is known here."""
    entry = store.put(artifact, "evil", "v1")
    file = archive.export(entry, tmp_path / "evil.tar.gz")
    store.remove(entry)
    return file


def programs(tmp_path: Path) -> list[Artifact]:
    root = str(tmp_path / "torch")
    return [
        coded(tmp_path / "torch", "torch", "weights.safetensors", loader="evilmod:model", root=root),
        coded(tmp_path / "program", "torch", "model.pt2"),
        coded(tmp_path / "sklearn", "sklearn", "model.skops", loader="evilmod:model", root=root),
        coded(tmp_path / "types", "sklearn", "model.skops", trusted=["os.system"]),
        coded(tmp_path / "keras", "keras", "model.keras", loader="evilmod:model", root=root),
        coded(tmp_path / "engine", "tensorrt", "model.plan"),
    ]


def test_archive_with_code_is_refused_by_every_entrance(tmp_path: Path) -> None:
    for artifact in programs(tmp_path):
        assert runtimes.code_in(artifact)
        file = exported(tmp_path, artifact)
        result = hone("models", "import", file)
        assert result.exit_code == 1, artifact.path
        assert "was not made on this host" in result.output
        assert "--trust-code" in result.output
        assert f"it {runtimes.code_in(artifact)}" in hone("models", "verify", file).output
        assert store.entries() == []
    assert not (tmp_path / "PWNED").exists()


def test_code_that_another_tool_put_into_the_store_is_not_run(tmp_path: Path) -> None:
    import bentoml

    file = exported(tmp_path, programs(tmp_path)[0])
    bentoml.models.import_model(str(file))
    entry = store.resolve("evil:v1")
    with pytest.raises(TrustError, match="was not made on this host"):
        load([entry], Settings())
    result = hone("serve", "evil:v1")
    assert result.exit_code == 1
    assert "it calls Python code, evilmod:model in" in result.output
    assert not (tmp_path / "PWNED").exists()


def test_better_artifact_with_code_is_passed_over_for_one_without(tmp_path: Path) -> None:
    """As on a GPU host: the engine of a stranger isn't run, the graph beside it is."""
    import bentoml

    bentoml.models.import_model(str(exported(tmp_path, programs(tmp_path)[0])))
    plain = store.put(dense_artifact(tmp_path / "plain", rank=1), "evil", "v2")
    assert load([store.resolve("evil:v1"), plain], Settings(threads=1, in_flight=1)).entry.tag == "evil:v2"


def test_code_runs_on_the_word_of_who_imports_or_serves_it(tmp_path: Path) -> None:
    file = exported(tmp_path, programs(tmp_path)[0])
    assert hone("models", "import", "--trust-code", file).exit_code == 0
    entry = store.resolve("evil:v1")
    assert is_trusted_here(entry)
    assert refusal(entry, Policy()) == ""
    # The word was about this content, and no other.
    seal(entry.path, entry.opened().manifest.model_copy(update={"precision": "fp16"}))
    assert "was not made on this host" in refusal(store.resolve("evil:v1"), Policy())
    assert refusal(store.resolve("evil:v1"), Policy(code=True)) == ""


def test_what_was_made_here_may_bring_code(tmp_path: Path) -> None:
    entry = store.put(coded(tmp_path / "engine", "tensorrt", "model.plan"), "evil", "v1")
    assert open_to_run(entry, Policy()).runtime == "tensorrt"
    store.remove(entry)
    assert not is_trusted_here(entry)


def test_models_of_a_bento_are_part_of_it(tmp_path: Path, home: Path) -> None:
    import bentoml

    bentoml.models.import_model(str(exported(tmp_path, programs(tmp_path)[-1])))
    assert refusal(store.resolve("evil:v1"), Policy())
    (home / "bentoml" / "bento.yaml").write_text("")
    assert refusal(store.resolve("evil:v1"), Policy()) == ""


def test_trusted_signature_lets_code_in_and_run(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "release")
    artifact = programs(tmp_path)[0]
    entry = store.put(artifact, "evil", "v1")
    assert hone("models", "sign", "evil:v1", "--key", private).exit_code == 0
    file = archive.export(entry, tmp_path / "signed.tar.gz")
    store.remove(entry)
    assert hone("models", "import", file).exit_code == 1  # signed, but by nobody that this host knows
    assert hone("models", "import", file, "--key", public).exit_code == 0
    entry = store.resolve("evil:v1")
    assert refusal(entry, Policy()) == ""
    assert refusal(entry, Policy.of(code=False, keys=str(public))) == ""


def test_service_with_trusted_keys_refuses_what_they_did_not_sign(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "release")
    entry = store.put(dense_artifact(tmp_path / "a"), "dense", "v1")
    settings = Settings(trusted_keys=str(public), trust_code=True, threads=1, in_flight=1)
    with pytest.raises(TrustError, match="unsigned; only what release signed is let in here"):
        load([entry], settings)
    assert "unsigned" in hone("serve", "dense", "--trusted-keys", public).output
    assert hone("models", "sign", "dense:v1", "--key", private).exit_code == 0
    assert load([entry], settings).entry.tag == "dense:v1"
    (entry.path / "signature.json").write_text("{}")
    with pytest.raises(TrustError, match="signature broken"):
        load([entry], Settings())


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("onnx", {"custom_ops": "/tmp/evil.so"}, "runtime_options.custom_ops"),
    ("onnx", {"providers": ["EvilExecutionProvider"]}, "EvilExecutionProvider"),
    ("onnx", {"provider_options": {"CPUExecutionProvider": {"library": "x"}}}, "'library' is not among"),
    ("openvino", {"inference_precision": "f32; x"}, "inference_precision"),
    ("openvino", {"extension": "/tmp/evil.so"}, "extension"),
    ("tensorrt", {"plugins": ["/tmp/evil.so"]}, "plugins"),
    ("mlx", {"metallib": "/tmp/evil"}, "metallib"),
    ("torch", {"loader": "evilmod:model"}, "the folder of its module"),
    ("xgboost", {"loader": "evilmod:model", "root": "/tmp"}, "loader"),
    ("lightgbm", {"trusted": ["os.system"]}, "trusted"),
    ("nonesuch", {}, "unknown runtime 'nonesuch'"),
]
REFUSED += [
    ("onnx", {"providers": [provider], "provider_options": {provider: {option: "/tmp/evil"}}}, f"'{option}' is not")
    for provider, options in {
        "TensorrtExecutionProvider": (
            "trt_extra_plugin_lib_paths", "trt_engine_decryption_lib_path", "trt_engine_cache_path",
            "trt_timing_cache_path", "trt_ep_context_file_path", "trt_onnx_model_folder_path",
            "trt_int8_calibration_table_name", "trt_dump_ep_context_model", "trt_engine_cache_prefix",
        ),
        "CUDAExecutionProvider": ("user_compute_stream", "gpu_external_alloc", "gpu_external_free"),
    }.items()
    for option in options
]  # fmt: skip


@pytest.mark.parametrize(("runtime", "options", "message"), REFUSED, ids=lambda value: str(value)[:60])
def test_option_that_a_runtime_does_not_know_is_refused(
    tmp_path: Path, runtime: str, options: dict[str, Any], message: str
) -> None:
    artifact = dense_artifact(tmp_path / "a")
    changed = artifact.with_manifest(runtime=runtime, runtime_options=options)
    for act in (lambda: runtimes.load(changed), lambda: store.put(changed, "dense", "v1")):
        with pytest.raises(ArtifactError, match="(?s)" + message):
            act()
    assert store.entries() == []


def test_stored_manifest_that_was_edited_is_refused_when_served(tmp_path: Path) -> None:
    entry = store.put(dense_artifact(tmp_path / "a"), "dense", "v1")
    manifest = json.loads((entry.path / "artifact.json").read_text())
    provider = "TensorrtExecutionProvider"
    manifest["runtime_options"] = {"provider_options": {provider: {"trt_extra_plugin_lib_paths": "/tmp/evil.so"}}}
    (entry.path / "artifact.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="trt_extra_plugin_lib_paths"):
        load([store.resolve("dense")], Settings())


def engine_graph(tmp_path: Path, entry: str = "model.onnx") -> Artifact:
    """A graph whose file has any name, with an EPContext node: a program of the provider in place of operators."""
    import onnx

    artifact = dense_artifact(tmp_path / "a")
    options = {"providers": ["TensorrtExecutionProvider", "CPUExecutionProvider"]}
    plain = seal(artifact.path, artifact.manifest.model_copy(update={"runtime_options": options}))
    assert runtimes.code_in(plain) == ""
    graph = onnx.load(artifact.entry)
    graph.graph.node.append(onnx.helper.make_node("EPContext", [], ["e"], domain="com.microsoft", embed_mode=1))
    artifact.entry.unlink()
    onnx.save(graph, artifact.path / entry)
    return seal(artifact.path, plain.manifest.model_copy(update={"entry": entry}))


def test_graph_with_a_compiled_engine_counts_as_code(tmp_path: Path) -> None:
    file = exported(tmp_path, engine_graph(tmp_path))
    with pytest.raises(TrustError, match="compiled TensorRT engine"):
        archive.import_archive(file, admit=Admission(Policy(), file))
    assert store.entries() == []


@pytest.mark.parametrize("entry", ["model.bin", "model.ONNX", "model.ort", "model"])
def test_compiled_engine_does_not_come_in_under_another_name(tmp_path: Path, entry: str) -> None:
    """ONNX Runtime opens a graph whatever its file is called."""
    file = exported(tmp_path, engine_graph(tmp_path, entry))
    with pytest.raises(ArtifactError, match=f"entry: '{entry}' must end in .onnx"):
        archive.import_archive(file, admit=Admission(Policy(), file))
    assert store.entries() == []


def test_compiled_engine_beside_the_entry_counts_as_code(tmp_path: Path) -> None:
    artifact = engine_graph(tmp_path, "inner.bin")
    (artifact.path / "model.onnx").write_bytes(b"x")
    beside = seal(artifact.path, artifact.manifest.model_copy(update={"entry": "model.onnx"}))
    assert "compiled TensorRT engine" in runtimes.code_in(beside)


def test_archive_is_judged_by_its_bytes_not_by_a_second_look(tmp_path: Path) -> None:
    """The signature that is checked is of the manifest that is written."""
    file = exported(tmp_path, dense_artifact(tmp_path / "a"))
    contents = archive.read_contents(file)
    entry = archive.import_archive(file, admit=Admission(Policy(), file))
    written = hashlib.sha256((entry.path / "artifact.json").read_bytes()).hexdigest()
    assert written == hashlib.sha256(contents.records["artifact.json"]).hexdigest()
    with tarfile.open(file) as packed:
        assert packed.getnames()[:2] == ["artifact.json", "model.yaml"]
