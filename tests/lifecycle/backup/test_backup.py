"""Backups and what comes back from them; a backup that was changed brings back nothing."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from hone import store
from hone.audit import AuditLog
from hone.audit import verify as verify_audit
from hone.cli.main import cli
from hone.errors import HoneError
from hone.lifecycle.backup.backup import DATED, create
from hone.lifecycle.backup.restore import restore, verify
from hone.lifecycle.registry.history import changes, entered
from hone.services.access.api_keys import add_key
from hone.store.registry import change, file_of, pointer_to
from hone.store.trust import is_trusted_here
from tests.models.dense import dense_artifact
from tests.servers import use_store

Members = list[tuple[str, bytes]]


@pytest.fixture
def backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a backup of two models, one with two versions of which the older is `latest`, and of four files."""
    monkeypatch.chdir(tmp_path)
    for name, version, seed in (("digits", "a-1", 0), ("digits", "b-2", 1), ("wine", "a-1", 2)):
        store.put(dense_artifact(tmp_path / "made" / name / version, name=name, seed=seed), name, version)
    (store.models_dir() / "digits" / "latest").write_text("a-1")
    add_key(Path("keys.yaml"), "ci", ("predict",), None)
    AuditLog(Path("audit.jsonl")).append("ci", "load", "digits:a-1", "done")
    (tmp_path / "out" / "digits").mkdir(parents=True)
    (tmp_path / "out" / "digits" / "report.json").write_text("{}")
    (tmp_path / "recipe.yaml").write_text("name: digits\n")
    return create(Path("b.tar.gz"), [Path(name) for name in ("keys.yaml", "audit.jsonl", "out", "recipe.yaml")])


def empty_home(tmp_path: Path) -> Path:
    """Point the store at a new home, and return a new folder for files."""
    use_store(tmp_path / "another-home")
    return tmp_path / "elsewhere"


def test_everything_comes_back_in_an_empty_home(backup: Path, tmp_path: Path) -> None:
    digests = {entry.tag: entry.opened().digest for entry in store.entries()}
    assert len(digests) == 3
    files = empty_home(tmp_path)
    done = restore(backup, files=files)
    assert len(done.written) == 7
    assert {entry.tag: entry.opened().digest for entry in store.entries()} == digests
    assert (store.models_dir() / "digits" / "latest").read_text() == "a-1"
    for name in ("keys.yaml", "audit.jsonl", "out/digits/report.json", "recipe.yaml"):
        assert (files / name).read_bytes() == (tmp_path / name).read_bytes()
        assert (files / name).stat().st_mode & 0o777 == 0o600
    assert verify_audit(files / "audit.jsonl").records == 1
    assert backup.stat().st_mode & 0o777 == 0o600


def test_aliases_come_back_and_dont_replace_newer_ones(backup: Path, tmp_path: Path) -> None:
    def champion(version: str) -> None:
        pointer = pointer_to(store.resolve(f"digits:{version}"))
        with entered("promote", f"digits:{version}"):
            change("digits", lambda before: before.pointing({"champion": pointer}))

    champion("a-1")
    second = create(tmp_path / "c.tar.gz")
    empty_home(tmp_path)
    assert {"registry/digits.json", "registry/history.jsonl"} <= {*restore(second).written}
    assert store.resolve("digits@champion").version == "a-1"
    champion("b-2")
    again = restore(second)
    assert again.kept == ("registry/digits.json", "registry/history.jsonl")
    assert store.resolve("digits@champion").version == "b-2"
    assert restore(second, force=True).written == ("registry/digits.json",)
    assert store.resolve("digits@champion").version == "a-1"
    assert [change.model for change in changes()] == ["digits:a-1", "digits:b-2"]


def test_registry_of_another_name_is_refused(backup: Path, tmp_path: Path) -> None:
    change("digits", lambda before: before.model_copy(update={"notes": {"a-1": {"data": "May"}}}))
    file_of("digits").rename(file_of("wine"))
    second = create(tmp_path / "c.tar.gz")
    empty_home(tmp_path)
    with pytest.raises(HoneError, match=r"registry/wine.json: is of 'digits'"):
        restore(second)
    assert store.entries() == []


def test_second_restore_changes_nothing(backup: Path, tmp_path: Path) -> None:
    files = empty_home(tmp_path)
    restore(backup, files=files)
    again = restore(backup, files=files)
    assert again.written == ()
    assert len(again.present) == 7


def test_what_differs_is_replaced_by_force_only(backup: Path, tmp_path: Path) -> None:
    files = empty_home(tmp_path)
    store.put(dense_artifact(tmp_path / "other", name="wine", seed=9), "wine", "a-1")
    files.mkdir()
    (files / "keys.yaml").write_text("keys: []\n")
    with pytest.raises(HoneError, match=r"^wine:a-1, .*keys\.yaml: there already, and not as in b\.tar\.gz"):
        restore(backup, files=files)
    assert [entry.tag for entry in store.entries()] == ["wine:a-1"]
    assert not (files / "recipe.yaml").exists()
    restore(backup, files=files, force=True)
    assert (files / "keys.yaml").read_bytes() == (tmp_path / "keys.yaml").read_bytes()
    assert len(store.entries()) == 3


def test_latest_that_points_elsewhere_is_not_moved(backup: Path, tmp_path: Path) -> None:
    (store.models_dir() / "digits" / "latest").write_text("b-2")
    with pytest.raises(HoneError, match="digits:latest: there already"):
        restore(backup, files=tmp_path)


def test_files_are_written_only_where_somebody_says(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their names are the choice of whoever made the backup: sitecustomize.py is one, .git/hooks/pre-commit another."""
    empty_home(tmp_path)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    result = CliRunner().invoke(cli, ["restore", str(tmp_path / backup)])
    assert result.exit_code == 0, result.output
    assert len(store.entries()) == 3
    assert list((tmp_path / "cwd").iterdir()) == []
    assert "left out keys.yaml\n" in result.output
    assert "4 file(s) left out; --files FOLDER writes them below it" in result.output
    result = CliRunner().invoke(cli, ["restore", str(tmp_path / backup), "--files", "."])
    assert result.exit_code == 0, result.output
    assert "left out" not in result.output
    assert (tmp_path / "cwd" / "out" / "digits" / "report.json").is_file()


def test_restore_does_not_follow_links_out_of_the_folder(backup: Path, tmp_path: Path) -> None:
    files, outside = empty_home(tmp_path), tmp_path / "outside"
    (outside / "digits").mkdir(parents=True)
    files.mkdir()
    (files / "out").symlink_to(outside)
    with pytest.raises(HoneError, match=r"out/digits/report\.json: a link on the way leads out of"):
        restore(backup, files=files, force=True)
    assert list(outside.rglob("*.json")) == store.entries() == []


def test_restore_replaces_a_link_and_leaves_what_it_leads_to(backup: Path, tmp_path: Path) -> None:
    files, victim = empty_home(tmp_path), tmp_path / "victim"
    files.mkdir()
    victim.write_text("mine")
    for name in ("keys.yaml", ".keys.yaml.partial", "recipe.yaml"):
        (files / name).symlink_to(victim if name != "recipe.yaml" else tmp_path / "nowhere")
    with pytest.raises(HoneError, match=r"keys\.yaml, .*recipe\.yaml: there already"):
        restore(backup, files=files)
    restore(backup, files=files, force=True)
    assert victim.read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
    assert (files / "keys.yaml").read_bytes() == (tmp_path / "keys.yaml").read_bytes()
    assert not (files / "keys.yaml").is_symlink()


def swapped(backup: Path) -> Path:
    """The part of one model holds another one, and the manifest has its right hash."""
    with tarfile.open(backup) as archive:
        parts = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    other, wine = parts["models/digits/b-2.tar.gz"], "models/wine/a-1.tar.gz"
    content = json.loads(parts[MANIFEST])
    content["parts"][wine] = content["parts"]["models/digits/b-2.tar.gz"]
    changed = {**parts, wine: other, MANIFEST: json.dumps(content).encode()}
    return rewritten(backup, lambda _: list(changed.items()))


def test_part_of_another_model_replaces_nothing(backup: Path, tmp_path: Path) -> None:
    swapped(backup)
    empty_home(tmp_path)
    mine = store.put(dense_artifact(tmp_path / "other", name="wine", seed=9), "wine", "a-1")
    digest = mine.opened().digest
    with pytest.raises(HoneError, match=r"^b\.tar\.gz/models/wine/a-1\.tar\.gz: holds digits:b-2, which the manifest"):
        restore(backup, force=True)
    assert {entry.tag: entry.opened().digest for entry in store.entries()} == {"wine:a-1": digest}


def test_model_that_is_replaced_comes_back_when_its_place_is_not_taken(tmp_path: Path) -> None:
    mine = store.put(dense_artifact(tmp_path / "a"), "dense", "v1")
    digest, latest = mine.opened().digest, mine.path.parent / "latest"
    with pytest.raises(RuntimeError), store.replacing(mine):
        assert store.entries() == []
        store.put(dense_artifact(tmp_path / "b", run="3"), "dense", "v2")
        raise RuntimeError
    assert store.resolve("dense:v1").opened().digest == digest
    assert is_trusted_here(store.resolve("dense:v1"))
    assert latest.read_text() == "v1"
    assert not list(store.models_dir().parent.glob(".hone-partial-*"))


def rewritten(backup: Path, change: Callable[[Members], Members]) -> Path:
    with tarfile.open(backup) as archive:
        members = [(member.name, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]
    with tarfile.open(backup, "w:gz") as archive:
        for name, content in change(members):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return backup


def flip(members: Members) -> Members:
    name, content = members[-1]
    return [*members[:-1], (name, content[:-1] + bytes([content[-1] ^ 1]))]


def manifest(**changes: object) -> Callable[[Members], Members]:
    def change(members: Members) -> Members:
        content = json.loads(members[0][1])
        content.update(changes)
        return [(members[0][0], json.dumps(content).encode()), *members[1:]]

    return change


def renamed(new: str) -> Callable[[Members], Members]:
    """A part gets another name, in the manifest, too."""

    def change(members: Members) -> Members:
        content = json.loads(members[0][1])
        name = members[1][0]
        content["parts"] = {new if key == name else key: value for key, value in content["parts"].items()}
        return [(members[0][0], json.dumps(content).encode()), (new, members[1][1]), *members[2:]]

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (flip, "corrupt, its sha256 is not the one in manifest.json"),
        (lambda members: members[:-1], "missing"),
        (lambda members: [*members, ("files/more", b"x")], "'files/more': not as the manifest lists it"),
        (lambda members: [*members, members[-1]], "not as the manifest lists it"),
        (lambda members: members[1:], "manifest.json does not stand first"),
        (lambda members: [(MANIFEST, b"{"), *members[1:]], "manifest.json: "),
        (manifest(schema_version=2), "manifest.json: schema_version"),
        (manifest(models={}), "its models and its parts don't agree"),
        (manifest(latest={"digits": "z-9"}), "'latest' names a model that is not in it"),
        (renamed("../../outside"), "is no part of a backup"),
        (renamed("/etc/passwd"), "is no part of a backup"),
        (renamed("files/a/../../b"), "is no part of a backup"),
        (renamed("other/file"), "is no part of a backup"),
    ],
)
def test_changed_backup_brings_back_nothing(
    backup: Path, tmp_path: Path, change: Callable[[Members], Members], words: str
) -> None:
    rewritten(backup, change)
    files = empty_home(tmp_path)
    for read in (verify, lambda file: restore(file, files=files)):
        with pytest.raises(HoneError) as caught:
            read(backup)
        assert str(caught.value).startswith("b.tar.gz: ")
        assert words in str(caught.value)
    assert store.entries() == []
    assert not files.exists()
    assert [path.name for path in (tmp_path / "another-home").iterdir()] == ["models"]


MANIFEST = "manifest.json"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(backup: Path, tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(backup) as archive:
        members = [(member, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]
    with tarfile.open(backup, "w:gz") as archive:
        for member, content in members[:-1]:
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo(members[-1][0].name)
        link.type, link.linkname = kind, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(HoneError, match="not as the manifest lists it"):
        restore(backup, files=empty_home(tmp_path))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_cut_backup_is_refused(backup: Path, tmp_path: Path, share: float) -> None:
    content = backup.read_bytes()
    backup.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(HoneError, match=r"b\.tar\.gz: not a"):
        restore(backup, files=empty_home(tmp_path))


def test_corrupt_model_is_not_backed_up(backup: Path) -> None:
    before = backup.read_bytes()
    model = next(store.entries()[0].path.glob("*.onnx"))
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    with pytest.raises(HoneError, match=r"model\.onnx"):
        create(backup)
    assert backup.read_bytes() == before
    assert not [path for path in backup.parent.iterdir() if path.name.startswith(".hone")]


def test_folder_keeps_the_newest(backup: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    for day in ("20250101", "20250102", "20250103"):
        shutil.copyfile(backup, folder / f"hone-{day}T000000Z.tar.gz")
    (folder / "notes.txt").write_text("kept")
    result = CliRunner().invoke(cli, ["backup", str(folder), "--keep", "2"])
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in folder.iterdir())
    assert names[0] == "hone-20250103T000000Z.tar.gz"
    assert DATED.fullmatch(names[1])
    assert names[2:] == ["notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["b.zip"], "a name that ends in .tar.gz"),
        (["b.tar.gz", "--keep", "2"], "is no folder"),
        (["b.tar.gz", "--include", "nothing"], "nothing does not exist"),
        (["b.tar.gz", "--include", "link"], "link is a link"),
        (["verify", "none.tar.gz"], "none.tar.gz: no such file"),
        (["verify", "text.tar.gz"], "text.tar.gz: not a whole backup"),
    ],
)
def test_wrong_arguments_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.tar.gz").write_text("text")
    (tmp_path / "link").symlink_to("text.tar.gz")
    result = CliRunner().invoke(cli, ["backup", *arguments])
    assert result.exit_code != 0
    assert words in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "b.tar.gz").exists()


def test_files_that_settings_name_go_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    add_key(tmp_path / "keys.yaml", "ci", ("predict",), None)
    monkeypatch.setenv("HONE_API_KEYS", str(tmp_path / "keys.yaml"))
    monkeypatch.setenv("HONE_AUDIT_LOG", "-")
    result = CliRunner().invoke(cli, ["backup", "b.tar.gz"])
    assert result.exit_code == 0, result.output
    assert "0 model(s), 1 file(s)" in result.output
    assert list(verify(Path("b.tar.gz")).parts) == ["files/keys.yaml"]
