"""The container engines: docker, podman and buildah, each by its command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hone.errors import HoneError, UnavailableError
from hone.processes import output_of

from .packing import KINDS, Request

ENGINES = ("docker", "podman", "buildah")


def find_engine(wanted: str = "") -> str:
    """Return the container engine to use.

    Raises:
        UnavailableError: it, or any, is not installed.
    """
    for name in (wanted,) if wanted else ENGINES:
        if shutil.which(name) and (wanted or _answers(name)):
            return name
    raise UnavailableError(
        f"{wanted} is not installed" if wanted else "no container engine is installed and running",
        f"install {wanted or 'docker, podman or buildah'}, or write the context with --context DIR and build elsewhere",
    )


def _answers(engine: str) -> bool:
    """Return whether an engine works; docker's command line may be there without its daemon."""
    return subprocess.run([engine, "info"], capture_output=True).returncode == 0


def build_command(engine: str, tag: str, request: Request, facts: dict[str, Any], folder: Path) -> list[str]:
    """Return the engine's command line; its own settings (storage, isolation) come from its environment variables."""
    epoch = str(facts["epoch"])
    # The default format of buildah and podman has no health check.
    command = {"docker": ["docker", "build"], "podman": ["podman", "build", "--format", "docker", "--timestamp", epoch],
               "buildah": ["buildah", "build", "--format", "docker", "--timestamp", epoch]}[engine]  # fmt: skip
    arguments = {
        "BASE": request.base or KINDS[request.kind].base,
        "SOURCE_DATE_EPOCH": epoch,
        "MODEL": facts["served"][0],
        "MODELS": ",".join(facts["served"][1:]),
    }
    if not request.wheels:
        # They are arguments of the first stage only, so they don't show in the image's history.
        arguments |= {
            name: value
            for name, value in (
                ("PIP_INDEX_URL", request.index_url or os.environ.get("PIP_INDEX_URL", "")),
                ("PIP_EXTRA_INDEX_URL", os.environ.get("PIP_EXTRA_INDEX_URL", "")),
                ("PIP_TRUSTED_HOST", os.environ.get("PIP_TRUSTED_HOST", "")),
            )
            if value
        }
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    for name, value in facts["labels"].items():
        command += ["--label", f"{name}={value}"]
    return [*command, "--tag", tag, "--file", str(folder / "Containerfile"), str(folder)]


def image_facts(engine: str, tag: str, base: str) -> tuple[str, float, float]:
    """Return an image's id, its size and what it adds to its base, MB."""
    sizes, identity = [], ""
    for name in (tag, base):
        if engine == "buildah":
            listed = json.loads(output_of(["buildah", "images", "--json", name], engine))[0]
            sizes.append(_bytes(str(listed["size"])))
            identity = identity or f"sha256:{listed['id']}"
        else:
            listed = json.loads(output_of([engine, "image", "inspect", name], engine))[0]
            sizes.append(float(listed["Size"]))
            identity = identity or str(listed["Id"])
    return identity, round(sizes[0] / 1e6, 1), round((sizes[0] - sizes[1]) / 1e6, 1)


def push(engine: str, tag: str) -> str:
    """Push an image to the registry that its tag names; return the digest under which that has it.

    Who pushes, and how the registry is reached, is the engine's own configuration (`docker login`, registries.conf).

    Raises:
        HoneError: the engine failed, or printed no digest.
    """
    with tempfile.TemporaryDirectory(prefix="hone-push-") as folder:
        file = Path(folder) / "digest"
        if engine == "docker":
            said = output_of(["docker", "push", tag], engine)
        else:
            output_of([engine, "push", "--digestfile", str(file), tag], engine)
            said = file.read_text()
    found = re.search(r"sha256:[0-9a-f]{64}", said)
    if found is None:
        raise HoneError(f"{engine} pushed {tag}, but printed no digest")
    return found[0]


def _bytes(text: str) -> float:
    """Return what buildah prints as `412 MB`, in bytes."""
    number, unit = text.split()
    return float(number) * {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9}[unit.upper()]
