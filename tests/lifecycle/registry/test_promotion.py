from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hone import store
from hone.audit import verify
from hone.cli.main import cli
from hone.lifecycle.registry import changes
from hone.lifecycle.registry.gates import Asked, gates
from hone.lifecycle.registry.history import history_file
from hone.store.registry import change, registered
from tests.lifecycle.drift.traffic import stored
from tests.lifecycle.registry.versions import proven, with_terms

UNMEASURED = ("--waive", "champion", "--waive", "latency", "--reason", "compared elsewhere")


def hone(*arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments])


def means(alias: str) -> str:
    return store.resolve(f"dense@{alias}").version


def test_aliases_are_promoted_gone_back_from_and_told_with_who_and_why(tmp_path: Path) -> None:
    for version in ("a", "b", "c"):
        proven(tmp_path, version)
    assert hone("registry", "promote", "dense:a", "--reason", "the first").exit_code == 0
    for version in ("b", "c"):
        promoted = hone("registry", "promote", f"dense:{version}", *UNMEASURED)
        assert promoted.exit_code == 0, promoted.output
    assert (means("champion"), means("previous")) == ("c", "b")

    back = hone("registry", "rollback", "dense", "--reason", "answers late")
    assert back.stdout == "dense@champion is dense:b, was dense:c\n"
    assert (means("champion"), means("previous")) == ("b", "a")
    assert hone("registry", "rollback", "dense").exit_code == 0
    again = hone("registry", "rollback", "dense")
    assert again.exit_code == 1
    assert again.stderr == "error: 'dense' has no previous; hone registry promote dense sets it\n"

    told = hone("registry", "history", "dense").stdout.splitlines()
    assert [line.split("  ", 2)[2] for line in told] == [
        "promote  nothing -> dense:a: the first",
        "promote  dense:a -> dense:b: compared elsewhere",
        "promote  dense:b -> dense:c: compared elsewhere",
        "rollback  dense:c -> dense:b: answers late",
        "rollback  dense:b -> dense:a",
        "rollback (failed)  dense: 'dense' has no previous; hone registry promote dense sets it",
    ]
    first = json.loads(hone("registry", "history", "--json").stdout.splitlines()[0])
    gates = {gate["name"]: gate for gate in json.loads(first["details"]["gates"])}
    assert gates["proof"]["detail"] == "loses at most 0.004 at 95% confidence, and meets its budget"
    assert gates["golden"]["verdict"] == "met"
    assert verify(history_file()).records == 12

    content = history_file().read_text()
    history_file().write_text(content.replace("answers late", "as planned.."))
    assert "was changed" in hone("registry", "history").stderr


def test_audit_log_has_the_evidence_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "audit.jsonl"
    monkeypatch.setenv("HONE_AUDIT_LOG", str(log))
    proven(tmp_path, "a")
    assert hone("registry", "promote", "dense", "--reason", "good").exit_code == 0
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(one["action"], one["outcome"]) for one in records] == [
        ("registry promote", "requested"), ("registry promote", "done")
    ]  # fmt: skip
    done = records[1]["details"]
    assert (done["from"], done["to"], done["reason"]) == ("", "dense:a", "good")
    assert {gate["name"] for gate in json.loads(done["gates"])} == {"proof", "golden"}


@pytest.mark.parametrize(
    ("selected", "status", "why"),
    [
        ({"verdict": "missed", "eligible": False, "reason": "loses 0.1"}, 3, "proof: loses 0.1"),
        ({"verdict": "undecided", "eligible": False, "reason": "too few rows"}, 4, "proof: too few rows"),
        ({"verdict": "met", "loss_upper": None}, 4, "proof: its proof is of before there were bounds"),
    ],
)
def test_only_a_bound_that_meets_the_budget_is_promoted(
    tmp_path: Path, selected: dict[str, object], status: int, why: str
) -> None:
    proven(tmp_path, "a", **selected)
    refused = hone("registry", "promote", "dense:a")
    assert refused.exit_code == status
    assert why in refused.stderr
    assert registered("dense").aliases == {}
    assert hone("registry", "promote", "dense:a", "--waive", "proof").exit_code == 2
    waived = hone("registry", "promote", "dense:a", "--waive", "proof", "--reason", "a demo")
    assert waived.exit_code == 0
    assert waived.stdout.startswith("waived  proof")


def test_other_answers_than_the_proofs_are_refused(tmp_path: Path) -> None:
    proven(tmp_path, "a", answers=1)
    refused = hone("registry", "promote", "dense:a", "--dry-run")
    assert refused.exit_code == 3
    assert "golden: other answers than its proof's" in refused.stderr


@pytest.mark.parametrize(
    ("rows", "shift", "verdict", "words"),
    [
        (3000, 0.0, "met", "traffic of 3,000 rows looks like the rows of its proof"),
        (600, 0.8, "missed", "today's traffic isn't what it was proven on: drift in 1 of 4 columns; input.features[1]"),
        (20, 0.0, "met", "too little traffic was sketched lately to tell"),
        (0, 0.0, "met", "too little traffic was sketched lately to tell"),
    ],
)
def test_rows_of_the_proof_must_look_like_what_is_asked_now(
    tmp_path: Path, rows: int, shift: float, verdict: str, words: str
) -> None:
    model = stored(tmp_path)
    if rows:
        model.hours((int(time.time() // 3600),), rows, shift=shift)
    found = gates(Asked(store.resolve("dense"), None, None, sketches=model.folder))
    (gate,) = [one for one in found if one.name == "drift"]
    assert gate.verdict == verdict and gate.detail.startswith(words)
    assert not any(one.name == "drift" for one in gates(Asked(store.resolve("dense"), None, None)))


def test_recipe_can_ask_for_a_person(tmp_path: Path) -> None:
    with_terms(proven(tmp_path, "a"), approval=True)
    refused = hone("registry", "promote", "dense:a")
    assert refused.exit_code == 3
    assert refused.stderr.endswith("approval: its recipe asks for a person's word: --approve with a --reason\n")
    assert hone("registry", "promote", "dense:a", "--approve").exit_code == 2
    assert hone("registry", "promote", "dense:a", "--approve", "--reason", "checked by hand").exit_code == 0


@pytest.mark.slow
def test_candidate_is_compared_with_the_champion_on_the_rows_that_are_kept(tmp_path: Path) -> None:
    with_terms(proven(tmp_path, "a"))
    assert hone("registry", "promote", "dense:a").exit_code == 0
    with_terms(proven(tmp_path, "b"))
    better = changes.examine("dense:b")
    found = {gate.name: gate for gate in better.gates}
    assert found["champion"].verdict == "met"
    assert found["champion"].detail.endswith("against dense:a, 0.02 is allowed; 400 rows, 95% confidence")
    assert "times the champion's time" in found["latency"].detail

    with_terms(proven(tmp_path, "c", seed=1))
    refused = hone("registry", "promote", "dense:c")
    assert refused.exit_code == 3
    assert "champion: accuracy loses" in refused.stderr
    assert means("champion") == "a"


def test_champion_of_other_inputs_or_half_the_size_closes_a_gate(tmp_path: Path) -> None:
    proven(tmp_path, "a")
    assert hone("registry", "promote", "dense:a").exit_code == 0
    with_terms(proven(tmp_path, "b"), size=0.5)
    refused = hone("registry", "promote", "dense:b", *UNMEASURED)
    assert "size: 0.00 MB, the champion's is 0.00 MB (at most 0.5 times)" in refused.stderr


def test_without_rows_that_are_kept_the_recipe_is_asked_for(tmp_path: Path) -> None:
    proven(tmp_path, "a")
    assert hone("registry", "promote", "dense:a").exit_code == 0
    proven(tmp_path, "b")
    refused = hone("registry", "promote", "dense:b")
    assert refused.exit_code == 4
    assert "champion: nothing is known of its recipe; give it: --recipe FILE" in refused.stderr


def test_another_promotion_meanwhile_is_noticed(tmp_path: Path) -> None:
    for version in ("a", "b"):
        proven(tmp_path, version)
    one, other = (changes.examine(f"dense:{version}") for version in ("a", "b"))
    changes.promote(one, "")
    with pytest.raises(store.registry.StoreError, match="changed meanwhile"):
        changes.promote(other, "")


def test_of_many_promotions_at_once_one_wins_and_the_history_is_whole(tmp_path: Path) -> None:
    examined = [changes.examine(proven(tmp_path, version).tag) for version in "abcdef"]
    gate = threading.Barrier(len(examined))

    def promoted(one: changes.Promotion) -> str:
        gate.wait()
        try:
            changes.promote(one, "at once")
        except store.registry.StoreError as error:
            return str(error)
        return one.tag

    with ThreadPoolExecutor(len(examined)) as pool:
        said = list(pool.map(promoted, examined))
    assert said.count("dense@champion changed meanwhile; promote again") == len(examined) - 1
    assert [f"dense:{means('champion')}"] == [one for one in said if one.startswith("dense:")]
    assert verify(history_file()).records == 2 * len(examined)


KILLED = """
import os, signal, sys
from hone.lifecycle.registry import changes
from hone.store import registry
write = registry.atomic_write

def killed(*given, **more):
    if sys.argv[1] == "after":
        write(*given, **more)
    os.kill(os.getpid(), signal.SIGKILL)

registry.atomic_write = killed
changes.promote(changes.examine("dense:b", waived=("champion", "latency"), approval="a test"), "a test")
"""


@pytest.mark.parametrize(("point", "left"), [("before", "a"), ("after", "b")])
def test_promotion_that_is_killed_is_made_or_not_and_the_next_one_goes_on(
    tmp_path: Path, point: str, left: str
) -> None:
    for version in ("a", "b", "c"):
        proven(tmp_path, version)
    assert hone("registry", "promote", "dense:a").exit_code == 0
    killed = subprocess.run([sys.executable, "-c", KILLED, point], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert means("champion") == left
    # What it was about to do is in the history, and no lock is left.
    assert [one.get("outcome") for one in map(json.loads, history_file().read_text().splitlines())] == [
        "requested", "done", "requested",
    ]  # fmt: skip
    assert hone("registry", "promote", "dense:c", *UNMEASURED).exit_code == 0
    assert (means("champion"), means("previous")) == ("c", left)
    assert verify(history_file()).records == 5


def test_alias_of_a_version_that_was_deleted_by_hand_is_named_and_others_go_on(tmp_path: Path) -> None:
    for version in ("a", "b", "c"):
        proven(tmp_path, version)
    assert hone("registry", "promote", "dense:a").exit_code == 0
    assert hone("registry", "promote", "dense:b", *UNMEASURED).exit_code == 0
    shutil.rmtree(store.resolve("dense:a").path)
    back = hone("registry", "rollback", "dense")
    assert (back.exit_code, back.stderr.count("\n"), "dense@previous" in back.stderr) == (1, 1, True), back.stderr
    assert means("champion") == "b"
    assert hone("registry", "list", "dense").exit_code == 0
    assert hone("registry", "promote", "dense:c", *UNMEASURED).exit_code == 0
    assert (means("champion"), means("previous")) == ("c", "b")


def test_what_was_promoted_is_the_content_not_the_name(tmp_path: Path) -> None:
    proven(tmp_path, "a")
    assert hone("registry", "promote", "dense:a").exit_code == 0
    entry = store.resolve("dense@champion")
    with store.replacing(entry):
        proven(tmp_path / "other", "a", seed=1)
    with pytest.raises(store.registry.StoreError, match="something else; promote a version again"):
        store.resolve("dense@champion")


def test_aliased_versions_stay_in_the_store(tmp_path: Path) -> None:
    for version in ("a", "b", "c", "d"):
        proven(tmp_path, version)
    assert hone("registry", "promote", "dense:a").exit_code == 0
    assert hone("registry", "promote", "dense:b", *UNMEASURED).exit_code == 0
    for held, alias in (("a", "previous"), ("b", "champion")):
        refused = hone("models", "rm", "dense:d", f"dense:{held}", "--yes")
        assert refused.exit_code == 1
        assert f"dense:{held} is dense@{alias}" in refused.stderr
    assert len(store.entries("dense")) == 4
    told = hone("models", "prune", "--keep", "1", "--dry-run").stdout
    assert told.startswith("would remove dense:c\n1 version(s)")
    assert hone("registry", "prune", "dense", "--keep", "1", "--yes").exit_code == 0
    assert [entry.version for entry in store.entries("dense")] == ["d", "b", "a"]


def test_candidate_goes_with_its_version(tmp_path: Path) -> None:
    entry = proven(tmp_path, "a")
    change("dense", lambda before: before.pointing({"candidate": store.registry.pointer_to(entry)}))
    assert means("candidate") == "a"
    assert hone("models", "rm", "dense:a", "--yes").exit_code == 0
    assert registered("dense").aliases == {}


def test_notes_are_listed_and_taken_away(tmp_path: Path) -> None:
    proven(tmp_path, "a")
    assert hone("registry", "annotate", "dense:a", "ticket=AB-1", "data=May").exit_code == 0
    assert hone("registry", "annotate", "dense:a", "data=").exit_code == 0
    listed = json.loads(hone("registry", "list", "--json").stdout)
    assert listed["notes"] == {"ticket": "AB-1"}
    assert "note      ticket: AB-1" in hone("registry", "show", "dense:a").stdout
    assert hone("registry", "annotate", "dense:a", "nothing").exit_code == 2


def test_unknown_alias_is_told_with_the_nearest() -> None:
    missing = hone("models", "show", "dense@champoin")
    assert missing.stderr == "error: no alias 'champoin'; did you mean 'champion'?\n"
