"""The fuzzer of the decoders, in a process that is limited in memory; `make fuzz CASES=...` runs it for longer."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.fuzz.valid import BUILDERS
from tests.servers import ROOT

QUICK, FULL = 3_000, 50_000


def _fuzz(cases: int, timeout_s: float) -> dict[str, dict[str, int]]:
    """Return how many cases of each protocol ended how."""
    command = [sys.executable, "-m", "tests.fuzz.run", str(cases)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr[-5000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["protocol"]: line["seen"] for line in lines}


def _check(seen: dict[str, dict[str, int]], cases: int) -> None:
    assert set(seen) == {*BUILDERS, "gzip", "zstd"}
    assert sum(sum(counts.values()) for counts in seen.values()) >= 0.9 * cases
    for protocol, counts in seen.items():
        total = sum(counts.values())
        assert counts["accepted"] > total / 20 and counts["400"] > total / 5, (protocol, counts)


def test_decoders_refuse_or_agree_with_another_reading() -> None:
    _check(_fuzz(QUICK, 280), QUICK)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_decoders_refuse_or_agree_with_another_reading_in_tens_of_thousands_of_cases() -> None:
    _check(_fuzz(FULL, 1400), FULL)
