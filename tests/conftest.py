"""Every test gets a model store and a pass cache of its own; nothing of the user's is read or written."""

from __future__ import annotations

import compileall
import gc
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hone.processes import end_quickly
from tests import cluster
from tests.house import ROOMS, ROOT
from tests.rewriting import rewrite_once

# Before anything imports bentoml: its configuration is read once a process.
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

# Threads of torch, scikit-learn and the boosted trees wait asleep, here and in what tests start: awake, they take the
# cores from the other tests' processes, and a training of a second takes ten.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Servers that tests start compute beside other tests: at a lower priority they would wait for all of these.
os.environ.setdefault("HONE_INFERENCE_NICE", "0")

# What a shell starts with `&` ignores Ctrl-C, and so would all programs that tests start, and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


TESTS = re.compile(r"/(test_\w+|conftest)\.py$")
"""Files that pytest rewrites, and keeps in a place of its own."""


@pytest.hookimpl(optionalhook=True)  # pytest runs without xdist, too
def pytest_xdist_auto_num_workers() -> int:
    """Two processes a core: tests wait for servers, callers and clocks for half of their time. With more, each of them
    imports the frameworks, and single tests come near their limits."""
    return 2 * (os.cpu_count() or 1)


def pytest_configure(config: pytest.Config) -> None:
    """Compile the code once: a thousand processes import it, and where PYTHONDONTWRITEBYTECODE is set none keeps what
    it compiled for the others, as images often have it."""
    gc.set_threshold(50_000, 20, 100)  # as a server's: frameworks make millions of objects that stay
    if hasattr(config, "workerinput"):  # of xdist: a worker
        return
    for folder in ("hone", *ROOMS):
        compileall.compile_dir(ROOT / folder, quiet=2)
    compileall.compile_dir(ROOT / "tests", rx=TESTS, quiet=2)
    if config.getoption("numprocesses", None):
        rewrite_once(ROOT / "tests", config)


LONG = (
    "benchmarks/test_locustfile.py",
    "converters/proof/test_proof.py",
    "services/test_operations.py",
    "converters/sources/test_keras_training.py",
    "services/http/test_connections.py",
    "converters/run/test_optimize.py",
    "repository/test_readme.py",
    "services/routes/test_following.py",
    "benchmarks/test_replay.py",
    "services/routes/test_golden_checks.py",
    "k8s/test_monitoring.py",
    "services/test_serving.py",
    "services/test_bento.py",
    "converters/passes/test_fuse_packed_attention.py",
)
"""Files that take from half a minute to five: begun first, so that no process is left with one at the end."""


@pytest.hookimpl(tryfirst=True)  # markers are chosen by after this
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {str(ROOT / "tests" / file): place for place, file in enumerate(LONG)}
    items.sort(key=lambda item: places.get(str(item.path), len(LONG)))
    for item in items:
        if "control_plane" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.cluster)


_frozen = 0
"""Modules that were there when garbage was last looked for without them."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What was imported stays: a search for garbage passes it by. It takes a second with all frameworks loaded, and
    every service that starts, and every model that goes, asks for one."""
    global _frozen
    if len(sys.modules) > _frozen + 100:
        gc.freeze()
        _frozen = len(sys.modules)


def pytest_unconfigure() -> None:
    """The process ends; the kernel has its memory back without a search."""
    end_quickly()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point Hone and BentoML at folders of this test."""
    root = tmp_path / "home"
    for folder in ("models", "bentos"):
        (root / "bentoml" / folder).mkdir(parents=True)
    monkeypatch.setenv("BENTOML_HOME", str(root / "bentoml"))
    monkeypatch.setenv("HONE_CACHE", str(root / "cache"))

    from bentoml._internal.bento import BentoStore
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.models import ModelStore

    BentoMLContainer.bentoml_home.set(str(root / "bentoml"))
    BentoMLContainer.model_store.set(ModelStore(root / "bentoml" / "models"))
    BentoMLContainer.bento_store.set(BentoStore(root / "bentoml" / "bentos"))
    return root


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[cluster.ControlPlane]:
    """A real Kubernetes control plane, one for the whole run."""
    if reason := cluster.missing():
        pytest.skip(reason)
    with cluster.control_plane(tmp_path_factory.mktemp("control-plane")) as running:
        yield running
