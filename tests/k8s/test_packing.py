"""Which stored artifacts go into an image, what is refused, what is written down, and who reads it."""

from __future__ import annotations

import ast
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pathspec
import pytest
from click.testing import CliRunner
from packaging.utils import canonicalize_name

from hone import store
from hone.cli.main import cli
from hone.errors import HoneError, StoreError
from hone.k8s.tools.containerize import containerize
from hone.k8s.tools.image_record import ImageRecord, PackedModel, image_to_deploy, measured_image, read_image_record
from hone.k8s.tools.packing import KINDS, Request, pack
from hone.k8s.tools.sbom import read_lock
from hone.k8s.tools.serving_code import CODE_ROOT, serving_code
from hone.runtimes import runtime_class
from hone.services.models.loading import candidates
from tests.house import files, imports, target
from tests.k8s.test_render import capacity, written
from tests.models.dense import dense_artifact
from tests.servers import use_store

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + "a" * 64


def put(folder: Path, name: str, variant: str, *, rank: int = 0, seed: int = 0, **manifest: Any) -> store.Entry:
    artifact = dense_artifact(folder / f"{name}-{variant}", name=name, variant=variant, rank=rank, seed=seed)
    return store.put(artifact.with_manifest(**manifest), name, f"{variant}-1")


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """digits, whose best variant is OpenVINO's and whose second is MLX's; wine, and an older version of it."""
    put(tmp_path, "digits", "openvino-int8", rank=0, seed=2, runtime="openvino")
    put(tmp_path, "digits", "mlx-q8", rank=1, seed=3, runtime="mlx")
    put(tmp_path, "digits", "onnx-fp32", rank=2)
    put(tmp_path, "wine", "onnx-int8", rank=0, seed=1)
    put(tmp_path, "wine", "onnx-fp32", rank=1)
    return tmp_path


@pytest.mark.usefixtures("shelf")
def test_several_models_and_versions_are_packed_and_the_first_of_each_name_is_served() -> None:
    packing = pack(Request("wine", more=("digits:onnx-fp32", "wine:onnx-fp32", "wine")))
    tags = [entry.tag for entry in packing.entries]
    assert tags == ["wine:onnx-int8-1", "digits:onnx-fp32-1", "wine:onnx-fp32-1"]
    assert packing.served == ("wine", "digits:onnx-fp32-1")
    assert packing.left_out == ()


@pytest.mark.usefixtures("shelf")
def test_image_that_cannot_hold_the_winner_is_refused_with_the_ways_out() -> None:
    with pytest.raises(HoneError) as refused:
        pack(Request("digits"))
    assert str(refused.value) == (
        "digits:openvino-int8-1 needs openvino, which an image of kind cpu hasn't got; build --kind openvino, "
        "or name another variant, such as digits:onnx-fp32-1, and measure that"
    )
    with pytest.raises(HoneError, match=r"digits:mlx-q8-1 needs mlx, .* hasn't got; name another variant, such as"):
        pack(Request("digits:mlx-q8", "openvino"))
    with pytest.raises(StoreError, match="no model 'rose'"):
        pack(Request("wine", more=("rose",)))


def test_winner_that_nothing_can_replace_says_so(tmp_path: Path) -> None:
    put(tmp_path, "digits", "mlx-q8", runtime="mlx")
    with pytest.raises(HoneError, match="hasn't got; no image holds it, nor is there another variant"):
        pack(Request("digits"))


def test_graph_for_an_accelerator_is_not_packed_for_what_it_would_fall_back_to(tmp_path: Path) -> None:
    options = {"providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]}
    put(tmp_path, "digits", "onnx-cuda-fp16", runtime_options=options)
    with pytest.raises(HoneError, match=r"needs ONNX Runtime's CUDA provider, .* build --kind cuda or tensorrt"):
        pack(Request("digits"))
    assert [entry.version for entry in pack(Request("digits", "cuda")).entries] == ["onnx-cuda-fp16-1"]


@pytest.mark.usefixtures("shelf")
def test_variants_that_are_left_out_are_named_and_recorded(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx")
    said: list[str] = []
    record = containerize(Request("digits", "openvino", more=("wine",)), said.append, tmp_path / "context")
    assert said[0] == "left out digits:mlx-q8-1: it needs mlx, which an image of kind openvino hasn't got"
    assert [model.tag for model in record.models] == [
        "digits:openvino-int8-1", "digits:onnx-fp32-1", "wine:onnx-int8-1",
    ]  # fmt: skip
    assert record.serves == "digits:openvino-int8-1"
    assert [(model.tag, model.needs) for model in record.left_out] == [("digits:mlx-q8-1", "mlx")]
    bill = (tmp_path / "context" / "build" / "sbom.cdx.json").read_text()
    assert all(f'"bom-ref": "{model.tag}"' in bill for model in record.models)


@pytest.mark.usefixtures("shelf")
def test_bento_keeps_the_order_of_what_was_packed(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx")
    request = Request("wine", more=("wine:onnx-fp32", "digits:onnx-fp32"))
    record = containerize(request, lambda _: None, tmp_path / "context")
    bento = tmp_path / "context" / "build" / "bento"
    use_store(bento)
    found = candidates("", str(bento / "src" / "hone" / "services" / "model.py"))
    assert [entry.tag for entry in found] == [model.tag for model in record.models]
    assert found[0].tag == "wine:onnx-int8-1"


@pytest.mark.usefixtures("shelf")
def test_command_writes_the_record(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx")
    file = tmp_path / "image.json"
    arguments = ["--and", "wine:onnx-fp32", "--context", str(tmp_path / "context"), "--record", str(file)]
    answer = CliRunner().invoke(cli, ["containerize", "wine", *arguments], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    record = read_image_record(file)
    assert [model.tag for model in record.models] == ["wine:onnx-int8-1", "wine:onnx-fp32-1"]
    assert record.models[0].digest == store.resolve("wine").opened().digest
    assert record.reference == record.image == "localhost/hone/wine:onnx-int8-1-cpu"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--push"], "--push: '' names no registry"),
        (["--push", "--tag", "localhost/hone/wine:1"], "'localhost/hone/wine:1' names no registry"),
        (["--push", "--tag", "registry.example.com/wine:1"], "--push: with --context nothing is built here"),
    ],
)
@pytest.mark.usefixtures("shelf")
def test_push_without_a_place_to_push_to_is_refused(tmp_path: Path, arguments: list[str], words: str) -> None:
    context = ["--context", str(tmp_path / "context")] if "nothing is built" in words else []
    answer = CliRunner().invoke(cli, ["containerize", "wine", *arguments, *context])
    assert answer.exit_code == 1
    assert words in answer.output


def test_command_offers_every_kind() -> None:
    from hone.cli.k8s.containerize import containerize as command

    (option,) = [parameter for parameter in command.params if parameter.name == "kind"]
    assert list(option.type.choices) == list(KINDS)  # type: ignore[attr-defined]


def imported(folder: Path) -> set[str]:
    """Return the top-level modules that the code of a folder imports, wherever in it."""
    names: set[str] = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"hone", "services"}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_image_has_every_package_that_a_service_may_import(kind: str) -> None:
    there = {package.name for package in read_lock(ROOT / "k8s" / "image" / f"{kind}.lock")}
    owners = packages_distributions()
    modules = {runtime_class(runtime).module.partition(".")[0] for runtime in KINDS[kind].runtimes}
    wanted = imported(ROOT / "services") | modules - {"onnxruntime"}
    assert {"pyarrow", "grpc", "redis", "jwt", "opentelemetry", "zstandard"} <= wanted
    missing = {name for name in wanted if not {canonicalize_name(owner) for owner in owners.get(name, [name])} & there}
    assert missing == set()


def record(**changes: Any) -> ImageRecord:
    content: dict[str, Any] = {
        "image": "registry.example.com/wine:1", "digest": DIGEST, "kind_of_image": "cpu", "base": "x", "hone": "1",
        "serves": "wine:onnx-int8-1", "models": [PackedModel(tag="wine:onnx-int8-1", digest="1" * 64)],
    }  # fmt: skip
    return ImageRecord(**{**content, **changes})


def deployed(folder: Path, image: str = "", tag: str = "wine:onnx-int8-1", **changes: Any) -> Any:
    file = folder / "image.json"
    file.write_text(record(**changes).model_dump_json())
    return image_to_deploy(image, file, tag, "1" * 64, Path("capacity.json"))


def test_recorded_image_is_deployed_by_the_digest_it_was_pushed_under(tmp_path: Path) -> None:
    image, remarks = deployed(tmp_path)
    assert image == f"registry.example.com/wine:1@{DIGEST}"
    assert remarks == ("The image serves wine:onnx-int8-1, 111111111111: what was measured (by image.json).",)
    assert deployed(tmp_path, digest="")[0] == "registry.example.com/wine:1"
    mirrored = f"mirror.example.com/wine@{DIGEST}"
    assert deployed(tmp_path, mirrored)[0] == mirrored


@pytest.mark.usefixtures("shelf")
def test_rendered_manifests_name_the_recorded_image_and_say_what_was_checked(tmp_path: Path) -> None:
    entry = store.resolve("wine")
    content = record(models=[PackedModel(tag=entry.tag, digest=entry.opened().digest)])
    (tmp_path / "image.json").write_text(content.model_dump_json())
    file = written(tmp_path, capacity(model=entry.tag))
    command = ["k8s", "render", "wine", "--capacity", str(file), "--out", str(tmp_path / "deploy")]
    answer = CliRunner().invoke(cli, [*command, "--image-record", str(tmp_path / "image.json")], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    assert f"digest: {DIGEST}" in (tmp_path / "deploy" / "kustomization.yaml").read_text()
    assert "The image serves wine:onnx-int8-1" in (tmp_path / "deploy" / "numbers.md").read_text()
    answer = CliRunner().invoke(cli, [*command[:-1], str(tmp_path / "other"), "--image", "r.example.com/wine:1"])
    assert answer.exit_code == 0, answer.output
    assert "Unchecked: whether r.example.com/wine:1 serves" in (tmp_path / "other" / "numbers.md").read_text()


def test_model_that_was_not_measured_is_remarked(tmp_path: Path) -> None:
    models = [*record().models, PackedModel(tag="digits:onnx-fp32-1", digest="2" * 64)]
    assert "digits:onnx-fp32-1 too; the numbers have no room" in deployed(tmp_path, models=models)[1][1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tag": "wine:onnx-fp32-1"}, "the image serves wine:onnx-int8-1, capacity.json was measured for wine:onnx-fp"),
        ({"models": [PackedModel(tag="wine:onnx-int8-1", digest="2" * 64)]}, "what was measured is 1111"),
        ({"image": "registry.example.com/wine:2"}, "is of registry.example.com/wine:1@sha256:a+, not of .*/wine:2"),
    ],
)
def test_numbers_of_another_model_than_the_image_serves_are_refused(
    tmp_path: Path, arguments: dict[str, Any], words: str
) -> None:
    given = {"image": arguments.pop("image")} if "image" in arguments else {}
    with pytest.raises(HoneError, match=words):
        deployed(tmp_path, **given, **arguments)


def test_numbers_measured_on_another_image_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "image.json"
    file.write_text(record().model_dump_json())
    checked = (file, "wine:onnx-int8-1", "1" * 64, Path("capacity.json"))
    for same in (f"mirror.example.com/wine:1@{DIGEST}", "registry.example.com/wine:1"):  # measured before it was pushed
        assert image_to_deploy("", *checked, same)[0] == f"registry.example.com/wine:1@{DIGEST}"
    for other in ("registry.example.com/wine:1@sha256:" + "b" * 64, "registry.example.com/wine:2"):
        with pytest.raises(HoneError, match=rf"was measured on {other}, .* is of registry.example.com/wine:1@{DIGEST}"):
            image_to_deploy("", *checked, other)


def test_image_of_a_measured_service_is_the_one_that_holds_what_answers(tmp_path: Path) -> None:
    file = tmp_path / "image.json"
    file.write_text(record().model_dump_json())
    assert measured_image(file, "wine:onnx-int8-1", "1" * 64) == f"registry.example.com/wine:1@{DIGEST}"
    with pytest.raises(HoneError, match="what answers is wine:onnx-int8-1, 222222222222; in the image that is 1111"):
        measured_image(file, "wine:onnx-int8-1", "2" * 64)
    with pytest.raises(HoneError, match="in the image that is nothing"):
        measured_image(file, "wine:other", None)


def test_numbers_without_a_record_are_marked_as_unchecked(tmp_path: Path) -> None:
    image, (remark,) = image_to_deploy("r.example.com/a:1", None, "wine:1", "1" * 64, tmp_path)
    assert image == "r.example.com/a:1" and remark.startswith("Unchecked: whether r.example.com/a:1 serves wine:1")
    with pytest.raises(HoneError, match="give --image, or --image-record"):
        image_to_deploy("", None, "wine:1", "1" * 64, tmp_path)


@pytest.mark.parametrize(("content", "words"), [("{}", "not a record of an image: image: "), (None, "no such file")])
def test_wrong_record_is_named(tmp_path: Path, content: str | None, words: str) -> None:
    if content:
        (tmp_path / "image.json").write_text(content)
    with pytest.raises(HoneError, match=words):
        read_image_record(tmp_path / "image.json")


def test_every_folder_of_serving_code_is_packed() -> None:
    """A bento that lacks a module fails when it is started, long after it was built."""
    import yaml

    names = {place.removeprefix("hone/") if "/services/" in place else place for place in serving_code()}
    patterns = yaml.safe_load((CODE_ROOT / "bentofile.yaml").read_text())["include"]
    spec = pathspec.PathSpec.from_lines("gitwildmatch", patterns)
    found = set(spec.match_tree_files(CODE_ROOT, follow_links=False))
    assert names == {file for file in found if not file.startswith(".venv/")}


def test_what_serving_imports_is_packed() -> None:
    """Also what it imports in functions, wherever the imports of those lead."""
    needed, waiting = set(), [file for file in files() if file.startswith("services/")]
    uses: dict[str, set[str]] = {}
    for found in imports():
        uses.setdefault(found.file, set()).add(target(found) or "")
    while waiting:
        file = waiting.pop()
        needed.add(file)
        waiting += [other for other in uses.get(file, set()) - needed - {""} if other not in waiting]
    packed = {place.removeprefix("hone/") if "/services/" in place else place for place in serving_code()}
    assert needed <= packed
