"""The check of pinned packages against known vulnerabilities."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("requirements_audit", ROOT / "requirements" / "audit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_lock_file_is_read_whole(audit: ModuleType) -> None:
    files = audit.lock_files()
    assert {file.name for file in files} >= {"constraints.txt", "cpu.lock", "cuda.lock", "tensorrt.lock"}
    rounds = audit.pinned(files)
    for file in files:
        lines = [line for line in file.read_text().splitlines() if line[:1].isalnum()]
        for line in lines:
            name, _, rest = line.partition("==")
            version = rest.split()[0].rstrip("\\;")
            assert any(packages.get(name.lower()) == version for packages in rounds), line


def test_two_versions_of_a_package_are_both_asked_about(audit: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.lock").write_text("numpy==1.0 \\\n    --hash=sha256:00\nonnx==1.2 ; sys_platform == 'linux'\n")
    (tmp_path / "b.lock").write_text("numpy==2.0\nonnx==1.2\n")
    rounds = audit.pinned([tmp_path / "a.lock", tmp_path / "b.lock"])
    assert rounds == [{"numpy": "1.0", "onnx": "1.2"}, {"numpy": "2.0"}]


def test_a_known_vulnerability_fails_and_names_the_remedy(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # The form of pip-audit's answer, with one of each kind of entry.
    answer = {
        "dependencies": [
            {"name": "aiohttp", "version": "3.9.0", "vulns": [{"id": "CVE-2024-23334", "fix_versions": ["3.9.2"]}]},
            {"name": "numpy", "version": "2.4.6", "vulns": []},
            {"name": "local", "skip_reason": "not there"},
        ],
        "fixes": [],
    }
    monkeypatch.setattr(audit, "ask", lambda packages: answer)
    (tmp_path / "x.txt").write_text("aiohttp==3.9.0\n")
    assert audit.main([str(tmp_path / "x.txt")]) == 1
    said = capsys.readouterr().out
    assert "aiohttp 3.9.0: CVE-2024-23334; fixed in 3.9.2" in said
    assert "nothing is known about local" in said


def test_without_its_data_it_says_that_nothing_was_audited(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(audit, "ask", lambda packages: {"dependencies": [{"name": "numpy", "skip_reason": "no"}]})
    (tmp_path / "x.txt").write_text("numpy==2.4.6\n")
    assert audit.main([str(tmp_path / "x.txt")]) == 0
    assert "1 packages were not audited" in capsys.readouterr().out
