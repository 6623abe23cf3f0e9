"""What a hostile archive, or a broken one, does to the host that imports it: nothing."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from hone import store
from hone.artifact import Artifact
from hone.cli.main import cli
from hone.errors import ArtifactError, HoneError, StoreError
from hone.store import archive
from hone.store.trust import Admission, Policy
from tests.models.dense import dense_artifact

Files = dict[str, bytes]


def hone(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def take(file: Path, **options: int) -> store.Entry:
    return archive.import_archive(file, admit=Admission(Policy(), file), **options)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """The content of an archive as `hone models export` writes it, in its order; nothing is in the store."""
    entry = store.put(dense_artifact(tmp_path / "a"), "dense", "v1")
    with tarfile.open(archive.export(entry, tmp_path)) as packed:
        content = {member.name: packed.extractfile(member).read() for member in packed}  # type: ignore[union-attr]
    store.remove(entry)
    return content


def pack(file: Path, content: Files, *more: tarfile.TarInfo) -> Path:
    with tarfile.open(file, "w:gz") as packed:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
        for member in more:
            packed.addfile(member, io.BytesIO(bytes(member.size)))
    return file


def edit(files: Files, record: str, **changes: object) -> Files:
    content = (json.loads if record == "artifact.json" else yaml.safe_load)(files[record])
    content.update(changes)
    text = json.dumps(content) if record == "artifact.json" else yaml.safe_dump(content)
    return {**files, record: text.encode()}


def everything(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if ".tar" not in path.name and path.name != "models")


def test_export_and_import_keep_every_byte(tmp_path: Path) -> None:
    entry = store.put(dense_artifact(tmp_path / "a"), "dense", "v1")
    digest = entry.opened().digest
    file = archive.export(entry, tmp_path)
    store.remove(entry)
    assert store.entries() == []
    assert take(file).opened().digest == digest


def test_bentoml_reads_what_hone_exported(tmp_path: Path) -> None:
    import bentoml

    entry = store.put(dense_artifact(tmp_path / "a"), "dense", "v1")
    file = archive.export(entry, tmp_path)
    store.remove(entry)
    assert str(bentoml.models.import_model(str(file)).tag) == "dense:v1"


def test_archive_in_another_order_is_read(tmp_path: Path, files: Files) -> None:
    assert take(pack(tmp_path / "x.tar.gz", dict(reversed(files.items())))).tag == "dense:v1"


@pytest.mark.parametrize("field", ["name", "version"])
@pytest.mark.parametrize("value", ["{0}/pp", "../../victim", "..", "", "x\ny", "Evil Name<script>", ".", 7, None])
def test_tag_of_an_archive_never_becomes_a_path(
    tmp_path: Path, home: Path, files: Files, field: str, value: object
) -> None:
    target = value.format(tmp_path) if isinstance(value, str) else value
    file = pack(tmp_path / "x.tar.gz", edit(files, "model.yaml", **{field: target}))
    before = everything(tmp_path)
    result = hone("models", "import", file)
    assert result.exit_code == 1
    assert len(result.output.splitlines()) == 1
    assert everything(tmp_path) == before


def test_latest_outside_the_store_is_not_overwritten(tmp_path: Path, files: Files) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "latest").write_text("mine")
    for name in (str(tmp_path / "victim"), "../../../victim"):
        with pytest.raises(StoreError, match="must be 1-63"):
            take(pack(tmp_path / "x.tar.gz", edit(files, "model.yaml", name=name)))
    assert (tmp_path / "victim" / "latest").read_text() == "mine"


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../../evil"),
        tarfile.TarInfo("/tmp/evil"),
        tarfile.TarInfo("evil"),
        tarfile.TarInfo("model.onnx"),  # a second one
        link("model.onnx", "/etc/passwd"),
        link("evil", "../../evil"),
        link("evil", "/etc/passwd", tarfile.LNKTYPE),
        link("evil", "", tarfile.FIFOTYPE),
        link("evil", "", tarfile.CHRTYPE),
    ],
    ids=lambda member: f"{member.type!r} {member.name}",
)
def test_member_that_is_not_a_listed_file_is_refused(tmp_path: Path, files: Files, member: tarfile.TarInfo) -> None:
    member.size = 3 if member.isreg() else 0
    file = pack(tmp_path / "x.tar.gz", files, member)
    before = everything(tmp_path)
    for command in ("import", "verify"):
        result = hone("models", command, file)
        assert result.exit_code == 1
        assert "not listed" in result.output or "is a link or a device" in result.output
    assert everything(tmp_path) == before


def test_changed_and_missing_files_are_named(tmp_path: Path, files: Files) -> None:
    flipped = bytearray(files["model.onnx"])
    flipped[len(flipped) // 2] ^= 1
    for content, message in (
        ({**files, "model.onnx": bytes(flipped)}, "sha256"),
        ({**files, "model.onnx": b"short"}, "5 bytes instead of"),
        ({name: data for name, data in files.items() if name != "model.onnx"}, "missing"),
    ):
        file = pack(tmp_path / "x.tar.gz", content)
        for act in (take, archive.verify_archive):
            with pytest.raises(ArtifactError, match=rf"model\.onnx: .*{message}|missing"):
                act(file)
    assert store.entries() == []


def bomb(tmp_path: Path, files: Files, size: int, *, honest: bool) -> Path:
    """An archive with a file of zeros, which its manifest lists with its true size and hash, or as one byte."""
    digest = hashlib.sha256()
    for _ in range(size >> 20):
        digest.update(bytes(1 << 20))
    manifest = json.loads(files["artifact.json"])
    manifest["files"]["zeros"] = {"sha256": digest.hexdigest(), "size": size if honest else 1}
    member = tarfile.TarInfo("zeros")
    member.size = size
    return pack(tmp_path / "bomb.tar.gz", {**files, "artifact.json": json.dumps(manifest).encode()}, member)


def test_bomb_is_refused_before_anything_is_written(tmp_path: Path, files: Files) -> None:
    file = bomb(tmp_path, files, 120 << 20, honest=True)
    assert file.stat().st_size < 1_000_000
    before = everything(tmp_path)
    with pytest.raises(StoreError, match="more tightly than weights do"):
        take(file)
    with pytest.raises(StoreError, match="more than 1 MB"):
        take(file, max_bytes=1_000_000)
    assert everything(tmp_path) == before
    assert hone("models", "import", "--max-size", "1", file).exit_code == 0  # on somebody's word


def test_file_larger_than_listed_is_not_read(tmp_path: Path, files: Files) -> None:
    with pytest.raises(ArtifactError, match=r"zeros.*bytes instead of 1"):
        take(bomb(tmp_path, files, 16 << 20, honest=False))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME], ids=repr)
def test_endless_header_is_refused(tmp_path: Path, files: Files, kind: bytes) -> None:
    """tarfile reads extended headers into memory whole, whatever length they claim."""
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 64 << 20
    file = tmp_path / "x.tar.gz"
    with gzip.open(file, "wb", compresslevel=1) as stream:
        stream.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(64):
            stream.write(b"9" * (1 << 20))
    with pytest.raises(StoreError, match="longer than they say"):
        take(file)


def test_full_disk_is_said_before_anything_is_written(
    tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = pack(tmp_path / "x.tar.gz", files)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(StoreError, match="MB free"):
        take(file)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def garbage(data: bytes) -> bytes:
    return data[:100] + bytes(100) + data[200:]


@pytest.mark.parametrize("spoil", [cut, garbage])
def test_damaged_archive_is_one_line_and_leaves_nothing(
    tmp_path: Path, files: Files, spoil: Callable[[bytes], bytes]
) -> None:
    file = pack(tmp_path / "x.tar.gz", files)
    file.write_bytes(spoil(file.read_bytes()))
    before = everything(tmp_path)
    result = hone("models", "import", file)
    assert (result.exit_code, len(result.output.splitlines())) == (1, 1)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("text", ["a: !!python/object/apply:os.system ['touch PWNED']", "[", "7", "name: x", ""])
def test_record_that_is_none_is_refused(tmp_path: Path, files: Files, text: str) -> None:
    with pytest.raises(StoreError, match=r"model\.yaml"):
        take(pack(tmp_path / "x.tar.gz", {**files, "model.yaml": text.encode()}))


def test_archive_is_verified_without_being_imported(tmp_path: Path, files: Files) -> None:
    result = hone("models", "verify", pack(tmp_path / "x.tar.gz", files))
    assert result.exit_code == 0
    for text in ("dense:v1", "all whole", "unsigned", "none: graph and weights"):
        assert text in result.output
    assert store.entries() == []


def test_import_says_when_a_name_means_another_model_now(tmp_path: Path, files: Files) -> None:
    store.put(dense_artifact(tmp_path / "b", seed=1, run="20000101"), "dense", "old")
    result = hone("models", "import", pack(tmp_path / "x.tar.gz", files))
    assert "'dense' now means this one; before it was dense:old" in result.output


def test_import_of_an_older_run_leaves_latest_where_it_is(tmp_path: Path, files: Files) -> None:
    newest = store.put(dense_artifact(tmp_path / "b", seed=1, run="20990101"), "dense", "v2")
    assert take(pack(tmp_path / "x.tar.gz", files)).tag == "dense:v1"
    assert store.resolve("dense") == newest
    assert (newest.path.parent / "latest").read_text() == "v2"
    store.remove(newest)
    assert (store.models_dir() / "dense" / "latest").read_text() == "v1"


def test_record_of_bentoml_is_small(tmp_path: Path, files: Files) -> None:
    """YAML costs far more to read than its bytes tell, and packs into nothing."""
    text = b"name: dense\nversion: v1\nx: [" + b"a," * 400_000 + b"]\n"
    for content in ({**files, "model.yaml": text}, {**dict(reversed(files.items())), "model.yaml": text}):
        with pytest.raises(StoreError, match=r"x\.tar\.gz: model\.yaml has 800,03\d bytes, too many"):
            take(pack(tmp_path / "x.tar.gz", content))


@pytest.mark.parametrize("text", ["[" * 15_000, "{a: " * 3_000, "- " * 7_000, "&a [" + "*a," * 5_000 + "]"])
def test_record_that_is_nested_deeply_is_refused(tmp_path: Path, files: Files, text: str) -> None:
    with pytest.raises(StoreError, match=r"x\.tar\.gz: .*model\.yaml"):
        take(pack(tmp_path / "x.tar.gz", {**files, "model.yaml": text.encode()}))


def test_message_does_not_name_a_folder_that_is_gone(tmp_path: Path, files: Files) -> None:
    file = pack(tmp_path / "x.tar.gz", {name: data for name, data in files.items() if name != "model.onnx"})
    with pytest.raises(ArtifactError, match=r"^dense:v1/model\.onnx: missing"):
        take(file)


def test_what_the_archive_says_of_its_origin_is_not_believed(tmp_path: Path, files: Files) -> None:
    """A record that an archive brings along is not listed, so it doesn't come in."""
    with pytest.raises(HoneError, match="not listed"):
        take(pack(tmp_path / "x.tar.gz", {**files, "origin.json": b'{"by": "hone optimize", "trusted": true}'}))


def test_stored_entry_is_still_an_artifact(tmp_path: Path, files: Files) -> None:
    entry = take(pack(tmp_path / "x.tar.gz", files))
    assert isinstance(entry.opened(), Artifact)
    assert (entry.path / "model.yaml").is_file()
