"""What this host can run, and what to install for the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

from hone.errors import one_line
from hone.hardware import cores, tool_versions
from hone.processes import why_failed
from hone.runtimes import all_runtimes
from hone.runtimes.base import Availability

TOOLS = (
    ("bentoml", "serving", "bentoml", "pip install bentoml==1.4.39"),
    ("locust", "hone bench", "locust", "pip install 'hone[bench]'"),
    ("onnxscript", "export of torch models", "onnxscript", "pip install 'hone[torch]'"),
    ("transformers", "models in Hugging Face folders", "transformers", "pip install 'hone[transformers]'"),
    ("torch_pruning", "pruning", "torch-pruning", "pip install 'hone[torch]'"),
    ("tf2onnx", "export of Keras models", "tf2onnx", "pip install 'hone[tensorflow]'"),
    ("ai_edge_quantizer", "int8 for LiteRT", "ai-edge-quantizer", "pip install 'hone[litert]'"),
    ("skl2onnx", "export of scikit-learn models", "skl2onnx", "pip install 'hone[trees]'"),
    ("optuna", "hone optimize --search", "optuna", "pip install 'hone[search]'"),
    ("statsmodels", "hone capacity forecast", "statsmodels", "pip install 'hone[deploy]'"),
    ("pyarrow", "parquet data", "pyarrow", "pip install 'hone[ops]'"),
)
"""Parts of Hone that are no runtimes: the module that tells, what they are for, the package, and what brings it."""


def runtime_states() -> dict[str, Availability]:
    """Return each runtime's availability. Each framework is asked in a process of its own: a broken native library
    must not take the answer about the others with it."""
    by_framework: dict[str, list[str]] = {}
    for name, runtime in all_runtimes().items():
        by_framework.setdefault(runtime.module or name, []).append(name)
    with ThreadPoolExecutor(cores()) as pool:
        found = {name: state for states in pool.map(_ask, by_framework.values()) for name, state in states.items()}
    return {name: found[name] for name in all_runtimes()}


def tool_states() -> dict[str, Availability]:
    """Return, by package, whether the parts of Hone that are no runtimes are there."""
    return {
        package: Availability(True, version=_version(package), detail=purpose)
        if find_spec(module)
        else Availability(False, reason=purpose, remedy=remedy)
        for module, purpose, package, remedy in TOOLS
    }


def _version(package: str) -> str:
    return tool_versions(package).get(package, "?")


def _ask(names: list[str]) -> dict[str, Availability]:
    """Ask runtimes of one framework, and import it when one says yes: only that shows that it really loads."""
    code = (
        "import dataclasses, gc, importlib, json; gc.disable(); "
        "from hone.processes import end_quickly; end_quickly(); from hone.runtimes import runtime_class; "
        f"runtimes = [runtime_class(name) for name in {names!r}]; states = [one.availability() for one in runtimes]; "
        "[importlib.import_module(one.module) for one, state in zip(runtimes, states) if state.usable and one.module]; "
        "print(json.dumps([dataclasses.asdict(state) for state in states]))"
    )
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        answer = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, env=environment
        )
    except subprocess.CalledProcessError as error:
        last = why_failed(error.stderr)
        return dict.fromkeys(names, Availability(False, reason=f"its check crashed: {last}", remedy="reinstall it"))
    except subprocess.TimeoutExpired as error:
        return dict.fromkeys(names, Availability(False, reason=one_line(error), remedy="reinstall it"))
    states = json.loads(answer.stdout.strip().splitlines()[-1])
    return {name: Availability(**state) for name, state in zip(names, states, strict=True)}
