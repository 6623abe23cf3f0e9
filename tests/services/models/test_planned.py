"""A service tells how it runs its model, and runs one as it is told."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from hone import store
from hone.artifact import Artifact, Manifest, Selection, seal
from hone.hardware import cores
from hone.plan import Plan
from hone.services.launch import free_port
from hone.signature import Signature, TensorSpec
from tests.servers import HONE, ROOT, Server, put, server, use_store

WIDTH = 768
SERVE = [HONE, "serve", "wide", "--port", "{port}"]
IDLE_S = 0.05
"""Processor seconds that a worker may use in the second after a request."""


def wide_artifact(path: Path) -> Artifact:
    """Six layers whose products are worth two threads, so that ONNX Runtime has a thread that could spin."""
    generator = np.random.default_rng(0)
    weights = [(generator.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32) for _ in range(6)]
    names = ["x", *(f"h{index}" for index in range(1, len(weights))), "y"]
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]], name=f"m{i}") for i in range(len(weights))]
    shape = ["batch", WIDTH]
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(matrix, f"w{index}") for index, matrix in enumerate(weights)],
    )
    path.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path / "model.onnx")
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", WIDTH)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", WIDTH)),),
    )
    return seal(
        path,
        Manifest(
            name="wide", variant="onnx-fp32", runtime="onnx", precision="fp32", entry="model.onnx",
            signature=signature, selection=Selection(run="20260101-000000-0000", rank=0, eligible=True),
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planned")
    use_store(folder / "home")
    store.put(wide_artifact(folder / "wide"), "wide", "first")
    return folder / "home"


@pytest.fixture(scope="module")
def told(home: Path) -> Iterator[dict[str, Any]]:
    """What a service says that was told nothing."""
    with server(SERVE, home) as running:
        content: dict[str, Any] = running.client.get("/v2/models/wide").json()
        yield {**content, "metrics": running.client.get("/metrics").text, "log": running.log.read_text()}


def pinned(told: dict[str, Any], **changes: Any) -> str:
    """Return the plan that the service told, changed; HONE_PLAN takes it as it is."""
    return json.dumps({**told["plan"], **changes})


def test_service_tells_the_plan_that_it_measured(told: dict[str, Any]) -> None:
    plan = Plan.model_validate_json(json.dumps(told["plan"]))
    assert (plan.model, plan.digest) == ("wide:first", told["parameters"]["digest"])
    assert plan.measured and not plan.spin and told["pinned"] is False
    assert 'hone_plan_pinned{model="wide",version="first"} 0.0' in told["metrics"]
    assert f"threads {plan.threads}, batches of up to {plan.max_batch_rows} rows" in told["log"]
    assert "HONE_PLAN" not in told["log"]


@pytest.mark.slow
def test_service_with_a_plan_measures_nothing_and_runs_as_it_says(home: Path, told: dict[str, Any]) -> None:
    given = pinned(told, threads=2, inline=False, max_batch_rows=3, workers=2)
    with server(SERVE, home, HONE_PLAN=given) as running:
        content = running.client.get("/v2/models/wide").json()
        assert content["plan"] == json.loads(given) and content["pinned"] is True
        assert len(running.workers()) == 2
        assert running.client.get("/v2/models/wide/config").json()["max_batch_size"] == 3
        assert 'hone_plan_pinned{model="wide",version="first"} 1.0' in running.client.get("/metrics").text
        rows = np.eye(4, WIDTH, dtype=np.float32)  # more than one batch may hold
        answer = running.client.post("/predict", json={"inputs": {"x": rows.tolist()}})
        assert np.array(answer.json()["outputs"]["y"]).shape == (4, WIDTH)
        log = running.log.read_text()
    assert "threads 2, batches of up to 3 rows" in log
    assert f"as HONE_PLAN says, measured on {told['plan']['host']['cpu']}" in log


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"digest": "0" * 64}, "HONE_PLAN is for wide:first (000000000000), but wide:first ("),
        ({"threads": "2"}, "HONE_PLAN: not a plan: threads: Input should be a valid integer"),
        ({"speed": 2}, "HONE_PLAN: not a plan: speed: Extra inputs are not permitted"),
    ],
)
def test_plan_that_can_not_be_followed_ends_the_start_with_one_line(
    home: Path, told: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    environment = {**os.environ, "BENTOML_HOME": str(home), "HONE_MODEL": "wide", "HONE_PLAN": pinned(told, **changes)}
    command = [*(["python", "-m", "bentoml", "serve", "hone.services.model:Model", "--port"]), str(free_port())]
    command[0] = HONE.replace("bin/hone", "bin/python")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {words}") and done.stderr.count("\n") == 1


def idle_s(running: Server) -> float:
    """Return the processor seconds of the worker in the second after a request, the middle of five."""
    (worker,) = (psutil.Process(pid) for pid in running.workers())

    def used() -> float:
        return float(sum(worker.cpu_times()[:2]))

    found = []
    for _ in range(6):
        answer = running.client.post("/predict", json={"inputs": {"x": [[0.0] * WIDTH] * 16}})
        assert answer.status_code == 200
        before = used()
        time.sleep(1.0)
        found.append(used() - before)
    return statistics.median(found[1:])


def priorities(running: Server) -> list[int]:
    """Return the niceness of the worker's threads, that of the event loop first."""
    (worker,) = running.workers()
    tasks = sorted(int(task.name) for task in Path(f"/proc/{worker}/task").iterdir())
    return [os.getpriority(os.PRIO_PROCESS, task) for task in tasks]


@pytest.mark.slow
def test_worker_rests_after_a_request_unless_its_plan_says_that_it_spins(home: Path, told: dict[str, Any]) -> None:
    """Threads that spin are measured, too: else a bound that nothing could exceed would be no test."""
    threaded = {"threads": 2, "inline": False}
    with server(SERVE, home, HONE_PLAN=pinned(told, **threaded), HONE_INFERENCE_NICE="7") as resting:
        resting_s = idle_s(resting)
        loop, *others = priorities(resting)
    with server(SERVE, home, HONE_PLAN=pinned(told, **threaded, spin=True)) as spinning:
        assert ", spinning, " in spinning.log.read_text()
        spinning_s = idle_s(spinning)
    assert resting_s <= IDLE_S
    assert spinning_s > resting_s
    behind = [nice for nice in others if nice > loop]
    assert behind == [loop + 7] * 2, "the thread that runs batches, and the runtime's own"


def threads_of(home: Path, *options: str, **environment: str) -> int:
    """Return the threads of a worker that has answered; two batches may be in flight, so none runs on the loop."""
    with server([*SERVE, *options], home, HONE_IN_FLIGHT="2", **environment) as running:
        assert running.client.post("/predict", json={"inputs": {"x": [[0.0] * WIDTH]}}).status_code == 200
        (worker,) = running.workers()
        return psutil.Process(worker).num_threads()


@pytest.mark.slow
def test_runtime_has_as_many_threads_as_it_is_given(home: Path) -> None:
    """The thread that calls the runtime is the first of them; the process counts the others."""
    one = threads_of(home, "--threads", "1")
    assert threads_of(home, "--threads", "4") == one + 3
    assert threads_of(home, HONE_THREADS="4") == one + 3


@pytest.mark.slow
def test_auto_starts_as_many_workers_as_it_says(tmp_path: Path) -> None:
    """A model that runs on the event loop shares its core with the handling of requests: a worker for each core."""
    put(tmp_path / "home", tmp_path / "dense", "dense", "first")
    command = [HONE, "serve", "dense", "--workers", "auto", "--port", "{port}"]
    with server(command, tmp_path / "home") as running:
        assert f"workers: {cores()}, as measured" in running.log.read_text()
        assert len(running.workers()) == cores()
        assert running.client.get("/v2/models/dense").json()["plan"]["workers"] == cores()
