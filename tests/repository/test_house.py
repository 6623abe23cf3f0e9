"""Imports go down, never up or sideways; docs/architecture.md draws the same floors."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath

import pytest

from tests.house import ELSEWHERE, ROOT, Import, files, imports, target

FLOORS = (
    ("hone/errors.py", "hone/hardware/cgroups.py"),
    ("hone/names.py", "hone/processes.py"),
    ("hone",),
    ("hone/evidence", "hone/formats", "hone/pages", "hone/sketches"),
    ("hone/traffic",),
    ("hone/runtimes",),
    ("hone/store",),
    ("hone/describe", "hone/profiles"),
    ("hone/similar",),
    ("services/settings.py",),
    ("services/http",),
    ("services/batching", "services/cache", "services/protocols"),
    ("services/access", "services/feedback", "services/observe"),
    ("services/arms", "services/models"),
    ("services/routes",),
    ("services/grpc", "services/jobs"),
    ("services",),
    ("hone/scoring",),
    ("converters/signal_stack.py",),
    ("converters/context.py",),
    ("converters/registry.py",),
    ("converters/graph", "converters/proof"),
    ("converters/sources", "converters/ensembles"),
    ("converters/passes",),
    ("converters/report",),
    ("converters/run",),
    ("converters",),
    ("k8s/prices.py",),
    ("k8s/autoscaler/hpa",),
    ("k8s/autoscaler",),
    ("k8s",),
    ("benchmarks/scenarios.py", "benchmarks/sampling.py", "benchmarks/made.py"),
    ("benchmarks/records.py", "benchmarks/tuned.py", "benchmarks/usage.py"),
    ("benchmarks/measures.py",),
    ("benchmarks/reports",),
    ("benchmarks/load",),
    ("benchmarks/peers",),
    ("benchmarks/capacity", "benchmarks/compare", "benchmarks/serving", "benchmarks/converters"),
    ("benchmarks/tuning", "benchmarks/auto"),
    ("benchmarks",),
    ("benchmarks/overview",),
    ("lifecycle",),
    ("benchmarks/drift",),
    ("hone/cli",),
)
"""The ground first. A file belongs to the longest place that its path begins with."""

APART = ({"services", "converters", "k8s"},)
"""Rooms beside each other: what two of them need lies in `hone`."""


def place_of(file: str) -> str:
    def holds(place: str) -> bool:
        return file == place or file.startswith(f"{place}/")

    return max((place for floor in FLOORS for place in floor if holds(place)), key=len)


FLOOR_OF = {place: number for number, floor in enumerate(FLOORS) for place in floor}


@cache
def ours() -> list[tuple[Import, str]]:
    """Return every import of the house's own, and the file that it names."""
    within = (found for found in imports() if not found.file.startswith(ELSEWHERE))
    return [(found, str(target(found))) for found in within if target(found)]


def test_no_import_goes_up_or_sideways() -> None:
    wrong = []
    for found, other in ours():
        mine, theirs = place_of(found.file), place_of(other)
        if mine != theirs and FLOOR_OF[theirs] >= FLOOR_OF[mine]:
            wrong.append(str(found))
    assert wrong == []


def test_rooms_beside_each_other_import_nothing_of_one_another() -> None:
    rooms = [(found, found.file.split("/")[0], other.split("/")[0]) for found, other in ours()]
    assert [
        str(found) for found, mine, theirs in rooms if mine != theirs and any({mine, theirs} <= s for s in APART)
    ] == []


def test_no_circles() -> None:
    """Not in functions and not for types only, either: whoever reads one file has to read the other."""
    graph: dict[str, set[str]] = {file: set() for file in files()}
    for found, other in ours():
        if other != found.file and not other.endswith("__init__.py") and not found.file.endswith("__init__.py"):
            graph[found.file].add(other)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_folders_hold_about_a_dozen_files() -> None:
    sizes = Counter(str(PurePosixPath(file).parent) for file in files() if not file.endswith("__init__.py"))
    assert {folder: size for folder, size in sizes.items() if size > 13} == {}


def test_files_are_about_three_hundred_lines_and_functions_about_forty() -> None:
    long = {file: lines for file in files() if (lines := len((ROOT / file).read_text().splitlines())) > 310}
    assert long == {}
    functions = {
        f"{file}:{node.name}": length
        for file, tree in files().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > 50
    }
    assert functions == {}


def test_no_file_is_a_drawer() -> None:
    words = {"utils", "util", "common", "helpers", "helper", "misc", "manager", "handler", "handlers", "lib"}
    assert [file for file in files() if words & set(PurePosixPath(file).with_suffix("").parts)] == []


FRAMEWORKS = {
    # What models come from, are made with and run on.
    "cuda": ("hone/runtimes/tensorrt",),
    "h5py": ("hone/runtimes/keras.py",),
    "keras": ("hone/runtimes/keras.py",),
    "lightgbm": ("hone/runtimes/lightgbm.py", "converters/sources/trees"),
    "mlx": ("hone/runtimes/mlx", "converters/passes/export/mlx.py"),
    "onnx": (
        "hone/describe/layers.py",
        "hone/profiles/activations",
        "hone/profiles/graph.py",
        "converters/graph",
        "converters/ensembles",
        "converters/passes",
        "converters/sources",
        "benchmarks/converters/arithmetic.py",
        "benchmarks/keeping/model.py",
        "benchmarks/overload/model.py",
    ),
    "onnxscript": ("converters/graph/packed_attention.py", "converters/passes/export/fuse.py"),
    "ai_edge_litert": ("hone/runtimes/litert.py",),
    "ai_edge_quantizer": ("converters/passes/quantize/quantize_litert.py",),
    "litert_torch": ("converters/sources/torch/to_litert.py",),
    "nncf": ("converters/passes/quantize/quantize_nncf.py",),
    "openvino": (
        "hone/runtimes/openvino.py",
        "converters/passes/export/openvino.py",
        "converters/passes/quantize/quantize_nncf.py",
    ),
    "optuna": ("converters/run/search.py", "converters/run/search_space.py", "lifecycle/retrain/parameters.py"),
    "statsmodels": ("k8s/planning/seasons.py", "benchmarks/drift/streams.py", "benchmarks/estimates/traffic.py"),
    "skl2onnx": ("converters/sources/sklearn", "benchmarks/converters/plain_sklearn.py"),
    "sklearn": (
        "hone/runtimes/sklearn.py",
        "converters/sources/sklearn",
        "converters/ensembles/stack.py",
        "lifecycle/drift/joint.py",
        "benchmarks/drift/streams.py",
        "benchmarks/estimates/traffic.py",
    ),
    "tensorflow": ("hone/formats/saved_model.py", "hone/runtimes/keras.py", "hone/runtimes/savedmodel.py"),
    "tensorflow_model_optimization": ("converters/sources/keras",),
    "tensorrt": ("hone/runtimes/tensorrt",),
    "tf2onnx": ("converters/sources/keras",),
    "tf_keras": ("hone/runtimes/keras.py", "converters/sources/keras"),
    "tokenizers": ("hone/steps/text.py", "converters/sources/torch/huggingface.py"),
    "PIL": ("hone/steps/pictures.py",),
    "torch": (
        "hone/formats/pt2.py",
        "hone/runtimes/torch",
        "converters/sources/torch",
        "converters/passes/compress",
        "benchmarks/converters/torch_models.py",
    ),
    "transformers": ("hone/runtimes/torch/huggingface.py",),
    "torch_pruning": ("converters/passes/compress/prune.py",),
    "torchao": ("converters/passes/compress/qat.py",),
    "xgboost": ("hone/runtimes/xgboost.py", "converters/sources/trees"),
    # What servers, load and pages are made with.
    "_bentoml_sdk": ("services/routes/server.py",),
    "bentoml": ("hone/store", "services"),
    "datasketches": ("hone/sketches/window.py",),
    "grpc": ("services/grpc", "benchmarks/load/sending/grpc_sender.py"),
    "jinja2": ("hone/pages/render.py", "k8s/tools/new_service.py"),
    "jwt": ("services/access/tokens.py",),
    "locust": ("benchmarks/load", "benchmarks/locustfile.py"),
    "mlflow": ("hone/store/mlflow_client.py", "lifecycle/registry/mlflow_mirror.py", "converters/run/mlflow_source.py"),
    "matplotlib": ("hone/pages/figures.py", "converters/report/plots.py"),
    "boto3": ("hone/sketches/bucket.py",),
    "opentelemetry": ("services/observe/tracing.py",),
    "prometheus_client": ("services/observe/metrics.py", "services/jobs/metrics.py", "lifecycle/watching/gauges.py"),
    "pyspark": ("hone/scoring/engines/spark.py",),
    "ray": ("hone/scoring/engines/ray.py",),
    "redis": ("services/cache/redis_client.py",),
    "scipy": ("hone/evidence",),
    "rich": ("hone/cli",),
    "uvicorn": ("services/http/connections.py",),
    "zstandard": ("services/http/reading.py",),
}
"""Packages that are heavy, optional or reached through a private seam, and the only places that know them."""


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_framework_is_known_to_its_own_files_only(framework: str) -> None:
    uses = [found for found in imports() if package(found) == framework and not found.file.startswith(ELSEWHERE)]
    assert uses, "nothing imports it: leave it out here"
    assert [str(found) for found in uses if not found.file.startswith(FRAMEWORKS[framework])] == []


def package(found: Import) -> str:
    return found.name.split(".")[0]
