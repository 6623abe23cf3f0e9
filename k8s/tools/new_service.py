"""`hone new service`: a folder with a BentoML service of one's own around stored models."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from hone import __version__, store
from hone.artifact import Artifact
from hone.errors import HoneError, one_line
from hone.files import atomic_directory
from hone.names import is_name, shown
from hone.runtimes import runtime_class
from hone.runtimes.python import pins
from hone.steps.ready import packages_of

from .build_context import IMAGE, STEPS_LOCK
from .packing import CUDA, KINDS, TENSORRT
from .sbom import read_lock
from .wheel import write_wheel

TEMPLATES = Path(__file__).parent.parent / "templates"
FILES = ("service.py", "bentofile.yaml", "test_service.py", "README.md")
GPU = "onnxruntime-gpu"
PACKAGES = {
    "openvino": ("openvino",),
    "litert": ("ai-edge-litert",),
    "tensorrt": ("tensorrt", "cuda-bindings"),
    CUDA: (GPU,),
    TENSORRT: (GPU, "tensorrt"),
}
"""What runtimes, and providers of ONNX Runtime, need beside the packages of any service."""


def write_service(name: str, references: Sequence[str], target: Path) -> str:
    """Write the folder of a service; return the name of its class.

    Args:
        name: of the service and its bentos; the class is named after it.
        references: what it serves, each NAME, NAME:VARIANT or a full tag; the first answers `/predict`.
        target: a folder that is new or empty.

    Raises:
        HoneError: a name is not valid, a model is named twice, or the folder is not empty or can't be written.
        StoreError: no such model.
    """
    title = class_name(name)
    target = _free_folder(target)
    references = tuple(dict.fromkeys(references))
    names, artifacts = _chosen(references)
    pins = packages(artifacts)
    try:
        with atomic_directory(target) as folder:
            wheel = write_wheel(folder / "wheels").relative_to(folder).as_posix()
            values: dict[str, object] = {
                "name": name, "title": title, "references": list(references), "names": names,
                "packages": pins, "wheel": wheel, "version": __version__,
            }  # fmt: skip
            _write_files(folder, values)
    except OSError as error:
        raise HoneError(f"{target} can't be written: {error.strerror or one_line(error)}") from error
    return title


def _chosen(references: Sequence[str]) -> tuple[list[str], list[Artifact]]:
    """Return the names of the models, and all that a host may have to choose from."""
    artifacts: list[Artifact] = []
    chosen: dict[str, str] = {}
    for reference in references:
        found = store.serving_set(reference)
        name = found[0].name
        if name in chosen:
            raise HoneError(
                f"{chosen[name]} and {reference} are versions of one model, of which a service loads one; "
                "name more in HONE_MODELS when it runs or is built"
            )
        chosen[name] = reference
        artifacts += [entry.opened(verify=False) for entry in found]
    return list(chosen), artifacts


def class_name(name: str) -> str:
    """Return the name of a service's class: wine-shop gives WineShop.

    Raises:
        HoneError: the name can't be that of a bento, or gives no name of a class.
    """
    title = "".join(part[:1].upper() + part[1:] for part in re.split(r"[._-]", name))
    if not is_name(name) or not title.isidentifier() or keyword.iskeyword(title):
        raise HoneError(
            f"{shown(name)} can't name a service and its class: it must be 1-40 of a-z, 0-9, '.', '_', '-', start with "
            "a letter, end with a letter or digit, and be no word of Python's"
        )
    return title


def _free_folder(target: Path) -> Path:
    """Return the whole path of a folder that may be written; raise HoneError when something is there."""
    where = target.resolve()
    if where == Path.cwd():
        raise HoneError(f"{target} is the folder you are in; give a new one, which takes its name when it is complete")
    if where.exists() and (not where.is_dir() or any(where.iterdir())):
        what = "is not empty" if where.is_dir() else "is a file"
        raise HoneError(f"{target} {what}; give a new folder with --out")
    return where


def packages(artifacts: Iterable[Artifact]) -> list[str]:
    """Return the pinned packages of a bento that serves these artifacts: those of any service, and their runtimes'."""
    found = (IMAGE / "packages.txt").read_text().split()
    known = {pin.partition("==")[0] for pin in found}
    extra: set[str] = set()
    for artifact in artifacts:
        providers = artifact.manifest.runtime_options.get("providers", [])
        needs = {artifact.runtime, *providers} & PACKAGES.keys()
        extra |= {name for need in needs for name in PACKAGES[need]}
        extra |= {_mlx()} if artifact.runtime == "mlx" else set()
        extra |= {*packages_of(artifact)}
        extra |= {pin for pin in pins(artifact) if pin.partition("==")[0] not in known}
    if GPU in extra:
        found = [pin for pin in found if not pin.startswith("onnxruntime==")]  # the same module
    locks = (*(IMAGE / f"{kind}.lock" for kind in KINDS), STEPS_LOCK)
    versions = {package.name: package.version for lock in locks for package in read_lock(lock)}
    return sorted([*found, *(f"{name}=={versions[name]}" if name in versions else name for name in extra)])


def _mlx() -> str:
    """No image has MLX, so no lock does; the version is this host's, if it has one."""
    version = runtime_class("mlx").availability().version
    return f"mlx{'[cpu]' if sys.platform == 'linux' else ''}{f'=={version}' if version else ''}"


def _write_files(folder: Path, values: dict[str, object]) -> None:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )  # Python, YAML and Markdown, from names that were checked: nothing to escape  # nosec B701
    for file in FILES:
        (folder / file).write_text(environment.get_template(f"{file}.jinja").render(values))
