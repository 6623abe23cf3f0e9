from __future__ import annotations

import json
import os
import pwd
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hone import store
from hone.audit import verify
from hone.cli.main import cli
from tests.models.dense import dense_artifact


def hone(*arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments])


def records(log: Path) -> list[tuple[str, str, str]]:
    content = [json.loads(line) for line in log.read_text().splitlines()]
    assert {record["actor"] for record in content} <= {f"user:{pwd.getpwuid(os.getuid()).pw_name}"}
    return [(record["action"], record["subject"], record["outcome"]) for record in content]


def test_commands_that_change_something_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, keys = tmp_path / "audit.jsonl", tmp_path / "keys.yaml"
    monkeypatch.setenv("HONE_AUDIT_LOG", str(log))
    monkeypatch.setenv("LOGNAME", "somebody-else")
    store.put(dense_artifact(tmp_path / "a", name="digits"), "digits", "v1")
    archive = tmp_path / "digits.tar.gz"
    assert hone("models", "export", "digits:v1", str(archive)).exit_code == 0
    assert hone("models", "rm", "digits:v1", "--yes").exit_code == 0
    assert hone("models", "import", str(archive)).exit_code == 0
    made = hone("keys", "new", "ci", "--scope", "predict:digits", "--file", str(keys))
    assert made.exit_code == 0
    assert hone("keys", "rm", "ci", "--file", str(keys)).exit_code == 0
    assert hone("models", "list").exit_code == 0
    done = [
        ("models export", f"digits:v1 {archive}"), ("models rm", "digits:v1"), ("models import", str(archive)),
        ("keys new", f"ci predict:digits {keys}"), ("keys rm", f"ci {keys}"),
    ]  # fmt: skip
    assert records(log) == [(*each, outcome) for each in done for outcome in ("requested", "done")]
    assert verify(log).records == 10
    assert made.stdout.splitlines()[0] not in log.read_text()


def test_failure_is_recorded_with_its_reason(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    assert hone("models", "rm", "nothing:v1", "--yes", "--audit-log", str(log)).exit_code == 1
    assert [outcome for *_, outcome in records(log)] == ["requested", "failed"]
    assert "nothing" in json.loads(log.read_text().splitlines()[1])["details"]["reason"]


def test_what_cant_be_recorded_isnt_done(tmp_path: Path) -> None:
    entry = store.put(dense_artifact(tmp_path / "a", name="digits"), "digits", "v1")
    result = hone("models", "rm", "digits:v1", "--yes", "--audit-log", "/dev/full")
    assert result.exit_code == 1
    assert result.stderr == "error: /dev/full: the audit record was not written: No space left on device\n"
    assert entry.path.exists()


def test_dry_run_is_no_action(tmp_path: Path) -> None:
    result = hone("optimize", str(tmp_path / "none.yaml"), "--dry-run", "--audit-log", str(tmp_path / "audit.jsonl"))
    assert result.exit_code == 2
    assert not (tmp_path / "audit.jsonl").exists()


def test_dash_is_standard_output_and_no_file() -> None:
    from hone.cli.services.serve import serve

    assert serve.make_context("serve", ["digits", "--audit-log", "-"]).params["audit_log"] == "-"
