"""What a variant's rows cost in energy: measured in its own process, limited where the host tells."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from hone.artifact import Artifact
from hone.converters.proof.evaluate import check_energy
from hone.converters.proof.probe import Probe
from hone.data import Dataset, save_dataset
from hone.errors import RecipeError
from hone.files import atomic_write
from hone.recipe import load_recipe
from tests import goldens
from tests.models.sums import write_project


@pytest.fixture
def powercap(tmp_path: Path) -> Iterator[Path]:
    """A package that uses a joule whenever it is looked away from."""
    folder = tmp_path / "powercap" / "intel-rapl:0"
    folder.mkdir(parents=True)
    for file, text in (("name", "package-0"), ("energy_uj", "0"), ("max_energy_range_uj", "1000000000000")):
        (folder / file).write_text(text)
    over = threading.Event()

    def burn() -> None:
        for joules in count(1):
            if over.is_set():
                return
            atomic_write(folder / "energy_uj", str(joules * 1_000_000))

    thread = threading.Thread(target=burn)
    thread.start()
    yield folder.parent
    over.set()
    thread.join()


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    save_dataset(Dataset(goldens.rows()), tmp_path / "rows.npz")
    return goldens.sealed(tmp_path / "model", goldens.network())


def used(artifact: Artifact, rows: Path, powercap: Path) -> float | None:
    probe = Probe(artifact.path, rows, powercap)
    probe.load(1)
    joules: float | None = probe.time(batch=8, milliseconds=100)["joules"]
    return joules


def test_energy_is_read_around_the_calls_that_are_timed(artifact: Artifact, powercap: Path, tmp_path: Path) -> None:
    joules = used(artifact, tmp_path / "rows.npz", powercap)
    assert joules is not None and joules >= 1


def test_without_counters_there_is_no_figure(artifact: Artifact, tmp_path: Path) -> None:
    assert used(artifact, tmp_path / "rows.npz", tmp_path / "none") is None


def test_limit_that_the_host_cant_measure_is_refused_before_anything_runs(tmp_path: Path, powercap: Path) -> None:
    loaded = load_recipe(write_project(tmp_path / "project", budget={"energy_j": 3}))
    with pytest.raises(RecipeError, match=r"recipe\.yaml: budget\.energy_j: energy is not told by this host: .*RAPL"):
        check_energy(loaded, tmp_path / "none")
    check_energy(loaded, powercap)
    check_energy(load_recipe(write_project(tmp_path / "other")), tmp_path / "none")
