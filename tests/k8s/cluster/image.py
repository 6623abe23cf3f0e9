"""What a pod runs: this checkout's code with a runtime of its own, as an image could have it, and models for that.

Two cores hold one busy model, and more pods on them would answer no more. So the model stands for one on a device of
the pod's own: a row takes its time there, one after the other, and the host's processor waits meanwhile. What is
around it, from the socket to the metrics, is what every service of Hone has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from hone.capacity import Capacity
from hone.plan import Host, Plan
from tests.capacities import capacity, trial
from tests.checkouts import copy_checkout
from tests.house import ROOMS
from tests.servers import HONE

ROW_S = 0.1
"""Seconds that the device takes for a row: a pod does 10 rows/s, and within its limits 8."""
LIMIT_MS = 2000.0
HELD_PER_S = 8.0
READY_S = 60.0
"""More than a start takes here, for the machine may be busy: a pod that is late is killed, and starts again."""

RUNTIME = '''"""Models on a device that takes its time for a row, while the host waits."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from hone.artifact import Artifact
from hone.runtimes.base import Availability, Runtime, RuntimeOptions, name_outputs, register


class Options(RuntimeOptions):
    row_s: float


@register("device")
class DeviceRuntime(Runtime):
    options = Options

    def __init__(self, artifact: Artifact, threads: int | None = None) -> None:
        self._weights = np.load(artifact.entry)
        self._signature = artifact.signature
        self._row_s = Options.model_validate(artifact.manifest.runtime_options).row_s

    @classmethod
    def availability(cls) -> Availability:
        return Availability(True, version="1")

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        (rows,) = inputs.values()
        time.sleep(self._row_s * len(rows))
        return name_outputs({"scores": rows @ self._weights}, self._signature)

    def describe(self) -> str:
        return "a device"
'''

STORE = """
import json, sys
from pathlib import Path
import numpy as np
from hone import store
from hone.artifact import Manifest, Selection, seal
from hone.signature import Signature, TensorSpec

folder, row_s = Path(sys.argv[1]), float(sys.argv[2])
signature = Signature(
    inputs=(TensorSpec(name="features", dtype="float32", shape=("batch", 4)),),
    outputs=(TensorSpec(name="scores", dtype="float32", shape=("batch", 3)),),
)
made = {}
for number in (1, 2):
    place = folder / str(number)
    place.mkdir(parents=True)
    np.save(place / "weights.npy", np.full((4, 3), number, np.float32))
    manifest = Manifest(
        name="sorter", variant="device-fp32", runtime="device", precision="fp32", entry="weights.npy",
        signature=signature, runtime_options={"row_s": row_s},
        selection=Selection(run=str(number), rank=0, eligible=True),
    )
    artifact = seal(place, manifest)
    made[store.put(artifact, "sorter", f"device-fp32-{number}").tag] = artifact.digest
print(json.dumps(made))
"""


@dataclass(frozen=True)
class Image:
    """An image, as a kubelet would start containers of it.

    Attributes:
        name: that manifests give.
        command: of the server; {port} is its port.
        environment: that the image sets.
        root: its code.
        model: the stored model that it serves.
        digest: of the model.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    root: Path
    model: str
    digest: str

    def capacity(self) -> Capacity:
        """Return what a pod of it holds, as `hone bench capacity` writes it, by the arithmetic of one queue.

        At 8 of 10 rows/s a row waits for 200 ms, by the formula of Pollaczek and Khinchine.
        """
        figures = {"rate": HELD_PER_S, "answered": HELD_PER_S, "mean_ms": 300, "p99_ms": 1200, "cpu_cores": 0.6}
        plan = Plan(
            model=self.model, digest=self.digest, workers=1, threads=1, in_flight=1, max_batch_rows=1, inline=False,
            pad=False, created="2026-01-01T00:00:00+00:00", host=Host(cpu="x", cores=2),
        )  # fmt: skip
        return capacity(
            model=self.model, digest=self.digest, plan=plan, ready_s=READY_S, rate=HELD_PER_S,
            rows_per_s=HELD_PER_S, in_flight_rows=2.4,
            slo=capacity().slo.model_copy(update={"limit_ms": LIMIT_MS}), repeats=[trial(**figures)] * 3,
        )  # fmt: skip


def images(folder: Path) -> dict[str, Image]:
    """Make two images with the same code and one version of a model each; return them by name."""
    root = copy_checkout(folder / "code", "hone", *ROOMS)
    (root / "hone" / "runtimes" / "device.py").write_text(RUNTIME)
    environment = {"PYTHONPATH": str(root), "BENTOML_HOME": str(folder / "store")}
    (folder / "store" / "models").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", STORE, str(folder / "made"), str(ROW_S)],
        cwd=root, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {}
    for number, (tag, digest) in enumerate(json.loads(done.stdout).items(), 1):
        name = f"registry.example.com/hone/sorter:{number}"
        command = (HONE, "serve", tag, "--port", "{port}")
        found[name] = Image(name, command, environment, root, tag, digest)
    return found
