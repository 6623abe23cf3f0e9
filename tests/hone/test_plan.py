from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hone.errors import HoneError
from hone.plan import Plan, given_plan
from hone.services.settings import Settings
from tests.plans import plan


def text(**changes: Any) -> str:
    return json.dumps({**plan().model_dump(mode="json"), **changes})


def test_plan_is_given_as_a_file_or_as_json(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(text())
    assert given_plan(str(file)) == given_plan(f"\n {text()}") == plan()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"treads": 2}, "treads: Extra inputs are not permitted"),
        ({"threads": "2"}, "threads: Input should be a valid integer"),
        ({"threads": 0}, "threads: Input should be greater than or equal to 1"),
        ({"threads": 100_000}, "threads: Input should be less than or equal to 1024"),
        ({"in_flight": 100_000}, "in_flight: Input should be less than or equal to 1024"),
        ({"workers": 100_000}, "workers: Input should be less than or equal to 1024"),
        ({"inline": 1}, "inline: Input should be a valid boolean"),
        ({"in_flight": 2}, "the event loop runs one batch at a time"),
        ({"schema_version": 2}, "schema_version: Input should be 1"),
        ({"kind": "capacity"}, "kind: Input should be 'plan'"),
        ({"measured": [{"threads": 1}]}, "measured.0.in_flight: Field required"),
    ],
)
def test_what_is_wrong_with_a_plan_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(text(**changes))
    for given, where in ((text(**changes), "HONE_PLAN: not a plan"), (str(file), f"HONE_PLAN: {file}: not a plan")):
        with pytest.raises(HoneError, match=words) as caught:
            given_plan(given)
        assert str(caught.value).startswith(where) and "\n" not in str(caught.value)


def test_plan_that_is_not_there_is_named() -> None:
    with pytest.raises(HoneError, match=r"HONE_PLAN: /none/plan\.json: no such file"):
        given_plan("/none/plan.json")


def test_plan_gives_the_workers_and_what_is_set_beside_it_agrees() -> None:
    given = text(workers=2)
    assert Settings.from_environment({"HONE_PLAN": given}).workers == 2
    agreeing = {"HONE_PLAN": given, "HONE_WORKERS": "2", "HONE_THREADS": "1", "HONE_MAX_BATCH_ROWS": "0"}
    assert Settings.from_environment(agreeing).workers == 2
    with pytest.raises(HoneError, match="HONE_THREADS is 4, but HONE_PLAN says 1"):
        Settings.from_environment({"HONE_PLAN": given, "HONE_THREADS": "4"})
    with pytest.raises(HoneError, match="HONE_WORKERS is 1, but HONE_PLAN says 2"):
        Settings.from_environment({"HONE_PLAN": given, "HONE_WORKERS": "1"})


def test_rate_of_batches_side_by_side_counts_all_of_them() -> None:
    (found,) = plan(measured=({"threads": 2, "in_flight": 3, "rows": 10, "seconds": 0.5},)).measured
    assert found.rows_per_s == 60
    assert found.describe() == "60 rows/s (10 rows, threads 2, 3 side by side)"


def test_plan_reads_back_as_it_was_written() -> None:
    assert Plan.model_validate_json(plan(spin=True).model_dump_json()) == plan(spin=True)
