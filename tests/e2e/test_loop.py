"""The whole loop on real data, as `make demo-loop` runs it: served, shifted, lost, retrained, rolled out, and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("loop")
    command = [sys.executable, str(ROOT / "examples" / "loop" / "loop.py"), "--out", str(folder / "out")]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=1400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "out" / "quality.html").read_text().count("<svg") >= 1
    found: dict[str, Any] = json.loads((folder / "out" / "story.json").read_text())
    return found


def test_a_shift_is_found_retrained_rolled_out_and_quality_is_back(facts: dict[str, Any]) -> None:
    assert facts["checked_before"] in (0, 4), "as in the proof, as far as some hundred labels tell"
    assert facts["drift"] == 3 and facts["checked_lost"] == 3
    assert facts["trigger"].startswith("quality, act: accuracy") and facts["outcome"] == "candidate"
    assert facts["second"] == facts["candidate"] != facts["first"]
    assert facts["checked_after"] in (0, 4)
    assert facts["accuracy_lost"] < 0.6 < 0.85 < min(facts["accuracy_before"], facts["accuracy_after"])


def test_a_worse_model_changes_nothing_and_the_report_says_why(facts: dict[str, Any]) -> None:
    assert facts["refused"] == 3 and "is not promoted: champion: accuracy loses" in facts["why"]
    assert facts["third"] == facts["second"] and facts["accuracy_kept"] > 0.85


def test_no_request_fails_all_the_while(facts: dict[str, Any]) -> None:
    assert facts["failed"] == [] and facts["requests"] > 1500
