"""`hone doctor`: what this host can run, and what to install for the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

from hone.errors import one_line
from hone.hardware import cores, host
from hone.processes import why_failed
from hone.runtimes import all_runtimes
from hone.runtimes.base import Availability

# Parts of Hone that are no runtimes: what they are for, the module that tells, the extra that brings it.
TOOLS = (
    ("bentoml", "serving", "bentoml", "pip install bentoml==1.4.39"),
    ("locust", "hone bench", "locust", "pip install 'hone[bench]'"),
    ("onnxscript", "export of torch models", "onnxscript", "pip install 'hone[torch]'"),
    ("torch_pruning", "pruning", "torch-pruning", "pip install 'hone[torch]'"),
    ("tf2onnx", "export of Keras models", "tf2onnx", "pip install 'hone[tensorflow]'"),
    ("skl2onnx", "export of scikit-learn models", "skl2onnx", "pip install 'hone[trees]'"),
    ("optuna", "hone optimize --search", "optuna", "pip install 'hone[search]'"),
    ("pyarrow", "parquet data", "pyarrow", "pip install 'hone[ops]'"),
)


def print_doctor() -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    facts = host()
    features = ", ".join(facts["cpu_features"]) or "none known"
    console.print(f"[bold]host[/]  {facts['cpu']}, {facts['cores']} cores, {facts['memory_gb']} GB, {facts['system']}")
    console.print(f"      instructions: {features}; GPU: {facts['gpu'] or 'none'}; Python {facts['python']}\n")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("runtime", "usable", "version", "details, or what to do"):
        table.add_column(column, overflow="fold")
    for name, state in runtime_states().items():
        table.add_row(name, _mark(state.usable), state.version or "-", state.detail if state.usable else _advice(state))
    table.add_section()
    for module, purpose, package, remedy in TOOLS:
        found = find_spec(module) is not None
        table.add_row(
            package,
            _mark(found),
            _version(package) if found else "-",
            purpose if found else escape(f"{purpose}: {remedy}"),
        )
    console.print(table)


def runtime_states() -> dict[str, Availability]:
    """Return each runtime's availability. Each is asked in a process of its own: a broken native library must not
    take the answer about the others with it."""
    names = list(all_runtimes())
    with ThreadPoolExecutor(cores()) as pool:
        return dict(zip(names, pool.map(_ask, names), strict=True))


def _ask(name: str) -> Availability:
    """Ask for the availability, and import the framework when it says yes: only that shows that it really loads."""
    code = (
        "import json, dataclasses, importlib; from hone.runtimes import runtime_class; "
        f"runtime = runtime_class({name!r}); state = runtime.availability(); "
        "state.usable and runtime.module and importlib.import_module(runtime.module); "
        "print(json.dumps(dataclasses.asdict(state)))"
    )
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        answer = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, env=environment
        )
    except subprocess.CalledProcessError as error:
        last = why_failed(error.stderr)
        return Availability(False, reason=f"its check crashed: {last}", remedy="reinstall it")
    except subprocess.TimeoutExpired as error:
        return Availability(False, reason=one_line(error), remedy="reinstall it")
    return Availability(**json.loads(answer.stdout.strip().splitlines()[-1]))


def _mark(usable: bool) -> str:
    return "[green]yes[/]" if usable else "[yellow]no[/]"


def _advice(state: Availability) -> str:
    from rich.markup import escape

    return escape(f"{state.reason}; {state.remedy}")


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "?"
