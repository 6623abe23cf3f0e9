"""Ray and Spark on this machine, with their real packages: installed beside, because they fight with other pins."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from hone import store
from tests.hone.scoring import answers, features, stored, table
from tests.models.dense import dense_answer
from tests.plans import plan
from tests.servers import HONE, ROOT

PACKAGES = ("ray==2.60.0", "msgpack==1.2.4", "pyspark==4.3.0", "py4j==0.10.9.9")
ROWS = features(30_000)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with both engines; what else they need is there."""
    folder = tmp_path_factory.mktemp("engines")
    uv = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--python", sys.executable]
    done = subprocess.run([*uv, "--target", folder, "--no-deps", *PACKAGES], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"Ray and PySpark can't be installed: {done.stderr.strip().splitlines()[-1]}")
    return folder


def run(packages: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}:{packages}", **environment}
    return subprocess.run(
        [HONE, "score", *map(str, arguments)], capture_output=True, text=True, env=variables, cwd=packages.parent
    )


@pytest.mark.parametrize("engine", ["ray", "spark"])
def test_an_engine_answers_each_row_once_and_goes_on(
    packages: Path, engine: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine == "spark" and shutil.which("java") is None:
        pytest.skip("java is not installed")
    tag = stored(home, tmp_path)
    given = plan(model=tag, digest=store.resolve("dense").opened().digest, max_batch_rows=64)
    monkeypatch.setenv("HONE_PLAN", given.model_dump_json())
    monkeypatch.setenv("TMPDIR", str(packages.parent))  # Ray's sockets: their paths may not be long
    source, out, aside = tmp_path / "rows.parquet", tmp_path / "out.parquet", tmp_path / "bad.jsonl"
    rows = table(ROWS).to_pandas()
    rows.loc[20_000, "b"] = np.nan
    rows.to_parquet(source)
    asked = ("dense", source, out, "--keep", "id", "--engine", engine, "--workers", "2", "--every", "0")
    failed = run(packages, *asked)
    assert failed.returncode == 1, failed.stderr
    assert failed.stderr.splitlines()[-1].startswith(f"error: {source}: row 20000: 'b' is null"), failed.stderr
    kept = len([*Path(f"{out}.parts").glob("0*.arrow")])
    done = run(packages, *asked, "--skip-bad", aside)
    assert done.returncode == 0, done.stderr
    assert "29,999 rows (" in done.stdout and "1 put aside" in done.stdout and kept
    good = np.delete(np.arange(len(ROWS)), 20_000)
    assert parquet.read_table(out).column("id").to_pylist() == good.tolist()
    np.testing.assert_allclose(answers(out), dense_answer(ROWS[good]), rtol=1e-5)
    assert len(aside.read_text().splitlines()) == 1


@pytest.mark.parametrize("engine", ["ray", "spark"])
def test_an_engine_that_isnt_installed_is_named_with_its_extra(engine: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a\n1\n")
    done = run(tmp_path, "dense", tmp_path / "rows.csv", tmp_path / "o.parquet", "--engine", engine)
    assert done.returncode == 1 and f"pip install 'hone[{engine}]'" in done.stderr
    assert done.stderr.count("\n") == 1
