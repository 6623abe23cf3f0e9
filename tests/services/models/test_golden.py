"""A model that answers otherwise than in its proof is refused, and one that doesn't is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from hone import runtimes, store
from hone.artifact import Artifact, Selection
from hone.converters.proof.golden import Taken
from hone.errors import GoldenError
from hone.runtimes.onnx.saturation import host_saturates
from hone.services.models.golden import compare
from hone.services.models.loading import load
from hone.services.settings import Settings
from tests import goldens
from tests.corruptions import flip, other_words, saturating, swap_outputs
from tests.passes import Bench
from tests.plans import plan
from tests.servers import use_store

Change = Callable[[onnx.ModelProto], object]

KINDS = ("fp32", "dynamic", "static")


@dataclass(frozen=True)
class Proven:
    """An artifact and its golden rows."""

    artifact: Artifact
    golden: Taken

    def refused(self, other: Artifact, rows: int = 16, threads: int = 1) -> bool:
        """Return whether a load of another artifact in its place is refused."""
        runtime = runtimes.load(other, threads)
        changed = other.with_manifest(golden=self.golden.record)
        try:
            compare("small:v1", changed, runtime, plan(max_batch_rows=rows), self.golden.rows)
        except GoldenError:
            return True
        finally:
            runtime.close()
        return False


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Proven]:
    """Sound artifacts, float and int8, two of each kind."""
    return dict(_proven(tmp_path_factory.mktemp("proven")))


def _proven(folder: Path) -> Iterator[tuple[str, Proven]]:
    data = goldens.rows()
    for seed, large in ((0, False), (1, True)):
        place = folder / f"bench{seed}"
        place.mkdir()
        bench = Bench(place, goldens.SIGNATURE, data)
        source = bench.artifact(goldens.network(seed, large=large))
        made = {
            "fp32": source,
            "dynamic": bench.run("quantize_dynamic", source),
            "static": bench.run("quantize_static", source),
        }
        for kind in KINDS:
            golden = goldens.taken(made[kind], data, folder / f"{kind}{seed}")
            assert golden.record is not None, golden.reason
            yield f"{kind}{seed}", Proven(made[kind], golden)


def changed(found: Proven, folder: Path, change: Change) -> Artifact:
    """Return a copy of an artifact whose graph was changed."""
    model = onnx.load(found.artifact.entry)
    change(model)
    return goldens.sealed(folder, model)


def test_a_sound_model_passes_by_any_threads_and_batches(proven: dict[str, Proven]) -> None:
    for name, found in proven.items():
        for threads in (1, 2):
            for rows in (1, 7, 64):
                assert not found.refused(found.artifact, rows, threads), (name, threads, rows)


@pytest.mark.skipif(host_saturates(), reason="this processor saturates by itself: nothing sound to compare with")
def test_saturated_products_are_refused(proven: dict[str, Proven], tmp_path: Path) -> None:
    """What an x86 processor without VNNI answers in place of those that have it."""
    found = proven["dynamic1"]
    assert found.refused(changed(found, tmp_path / "a", lambda model: _positive(saturating(model))))


def _positive(count: int) -> None:
    assert count > 0


@pytest.mark.parametrize("kind", ["fp32", "dynamic", "static"])
def test_swapped_outputs_and_other_tokens_are_refused(proven: dict[str, Proven], tmp_path: Path, kind: str) -> None:
    found = proven[f"{kind}0"]
    assert found.refused(changed(found, tmp_path / "swapped", swap_outputs))
    assert found.refused(changed(found, tmp_path / "words", _other_words(found, np.random.default_rng(0))))


def _other_words(found: Proven, generator: np.random.Generator) -> Change:
    stored = onnx.load(found.artifact.entry).graph.initializer
    table = next(tensor.name for tensor in stored if list(tensor.dims) == [goldens.WORDS, goldens.WIDTH])
    return lambda model: other_words(model, table, generator)


def test_a_load_takes_the_next_variant_when_one_answers_otherwise(proven: dict[str, Proven], tmp_path: Path) -> None:
    use_store(tmp_path / "home")
    sound = proven["fp320"]
    wrong = changed(sound, tmp_path / "wrong", swap_outputs)
    for rank, (name, artifact) in enumerate((("wrong", wrong), ("sound", sound.artifact))):
        ranked = Selection(run="20260101-000000-0000", rank=rank, eligible=True)
        stored = goldens.with_golden(
            tmp_path / f"stored-{name}", artifact, sound.golden, selection=ranked, variant=name
        )
        store.put(stored, "small", name)
    entries = store.entries("small")
    assert [entry.version for entry in entries] == ["wrong", "sound"]
    loaded = load(entries, Settings())
    assert loaded.entry.version == "sound"
    with pytest.raises(GoldenError, match=r"small:wrong gives other answers than its proof.s to \d+ golden rows"):
        load(entries[:1], Settings())


@pytest.mark.slow
def test_two_hundred_of_two_hundred_wrong_loads_are_refused(proven: dict[str, Proven], tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    missed, made = [], 0
    for label, found, change in (*_swaps_and_words(proven, generator), *_saturated(tmp_path / "nets")):
        made += 1
        if not found.refused(changed(found, tmp_path / str(made), change), int(generator.integers(1, 65))):
            missed.append(label)
    while made < 200:
        found = proven[f"{KINDS[made % 3]}{made % 2}"]
        wrong = changed(found, tmp_path / f"flip{generator.integers(1 << 60)}", lambda model: flip(model, generator))
        if not _matters(found, wrong):
            continue  # such as a weight behind a unit that never fires
        made += 1
        if not found.refused(wrong, int(generator.integers(1, 65))):
            missed.append(f"flip in {wrong.path}")
    assert (made, missed) == (200, [])


def _swaps_and_words(proven: dict[str, Proven], generator: np.random.Generator) -> Iterator[tuple[str, Proven, Change]]:
    for number in range(100):
        name = f"{KINDS[number % 3]}{number % 2}"
        change: Change = swap_outputs if number < 20 else _other_words(proven[name], generator)
        yield f"{name} {number}", proven[name], change


def _saturated(folder: Path) -> Iterator[tuple[str, Proven, Change]]:
    if host_saturates():  # by itself: there is nothing sound to compare with
        return
    data = goldens.rows()
    for seed in range(10, 20):
        place = folder / f"bench{seed}"
        place.mkdir(parents=True)
        bench = Bench(place, goldens.SIGNATURE, data)
        artifact = bench.run("quantize_dynamic", bench.artifact(goldens.network(seed, large=True)))
        found = Proven(artifact, goldens.taken(artifact, data, folder / f"golden{seed}"))
        for spare in (None, 0, 1, 2, 3):
            yield f"saturated {seed} but {spare}", found, lambda model, spare=spare: saturating(model, spare)  # type: ignore[misc]


def _matters(found: Proven, wrong: Artifact) -> bool:
    """Return whether some evaluation row's answer is further off than the tolerance, or isn't there."""
    data, record = goldens.rows(), found.golden.record
    assert record is not None
    try:
        answers = [runtimes.load(artifact, 1).run(data) for artifact in (found.artifact, wrong)]
    except Exception:  # noqa: BLE001 - whatever it is, it matters
        return True
    return any(
        not np.abs(answers[0][name] - answers[1][name]).max() <= (tolerance.largest or 0)
        for name, tolerance in record.outputs.items()
    )


@pytest.mark.slow
def test_none_of_a_thousand_sound_loads_is_refused(proven: dict[str, Proven]) -> None:
    """By other threads, batches, and optimizations, which choose other kernels."""
    generator = np.random.default_rng(6)
    fusions = ("MatMulAddFusion", "QDQSelectorActionTransformer", "DynamicQuantizeMatMulFusion", "ConstantFolding")
    refused = []
    for number in range(1000):
        name = f"{KINDS[number % 3]}{generator.integers(2)}"
        options = {
            "optimized": bool(generator.random() < 0.8),
            "disabled_optimizers": [fusion for fusion in fusions if generator.random() < 0.3],
            "spin": bool(generator.random() < 0.2),
        }
        found = proven[name]
        sound = found.artifact.with_manifest(runtime_options=options)
        if found.refused(sound, int(generator.integers(1, 65)), int(generator.integers(1, 4))):
            refused.append((name, options))
    assert refused == []
