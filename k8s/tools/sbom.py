"""The bill of materials of an image, in CycloneDX: every package by version and hash, and the models."""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from hone import __version__
from hone.errors import HoneError, UnavailableError
from hone.store import Entry

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

PYTHONS = ("3.11.2", "3.11.14", "3.12.12")
"""What images are built on: Debian's, and the newest."""


@dataclass(frozen=True)
class Package:
    """A line of a lock file."""

    name: str
    version: str
    hashes: tuple[str, ...]
    sometimes: bool = False
    """Only some of the Python versions that an image may have need it."""


def read_lock(file: Path) -> list[Package]:
    """Return the packages of a lock file made by `uv pip compile --generate-hashes`, as far as Linux needs them.

    Raises:
        HoneError: the file is missing, or a package has no hash.
    """
    try:
        text = file.read_text()
    except FileNotFoundError:
        raise HoneError(f"{file}: no such file; requirements/compile.sh writes it") from None
    packages = []
    for block in re.split(r"\n(?=[A-Za-z0-9])", text.replace("\\\n", " ")):
        match = re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)(?:\s*;\s*([^\n]*?))?\s*(?:--hash|\n|$)", block)
        if match is None:
            continue
        needed = [_needed(match[3], version) for version in PYTHONS]
        if not any(needed):
            continue
        hashes = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", block))
        if not hashes:
            raise HoneError(f"{file}: {match[1]} has no hash; make the file anew with requirements/compile.sh")
        packages.append(Package(canonicalize_name(match[1]), match[2], hashes, not all(needed)))
    return packages


def _needed(marker: str | None, python: str) -> bool:
    """Return whether a package with this environment marker is installed on Linux with that Python."""
    if not marker:
        return True
    from packaging.markers import Marker

    environment = {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "platform_machine": "x86_64",
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
    }
    return Marker(marker).evaluate(environment)


def bill_of_materials(
    labels: Mapping[str, str], packages: Sequence[Package], entries: Sequence[Entry], epoch: int
) -> str:
    """Return a CycloneDX 1.6 document; the same for the same contents.

    Args:
        labels: of the image; they name it.
        packages: that it installs.
        entries: models that it holds.
        epoch: its time, seconds since 1970.

    Raises:
        UnavailableError: cyclonedx-python-lib is not installed.
    """
    if find_spec("cyclonedx") is None:
        raise UnavailableError("cyclonedx-python-lib is not installed", "pip install 'hone[deploy]'")
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    title, version = labels["org.opencontainers.image.title"], labels["org.opencontainers.image.version"]
    root = Component(name=title, version=version, type=ComponentType.CONTAINER, bom_ref="image")
    code = Component(name="hone", version=__version__, type=ComponentType.APPLICATION, bom_ref="hone")
    parts = [*map(_library, packages), code, *map(_model, entries)]
    bom = Bom(components=parts, serial_number=uuid.uuid5(uuid.NAMESPACE_URL, repr(sorted(labels.items()))))
    bom.metadata.component = root
    bom.metadata.timestamp = datetime.datetime.fromtimestamp(epoch, datetime.UTC)
    bom.register_dependency(root, parts)
    return str(JsonV1Dot6(bom).output_as_string(indent=2)) + "\n"


def _library(package: Package) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=f"{package.name}=={package.version}",
        purl=PackageURL("pypi", name=package.name, version=package.version),
        # One hash for each file that the index has; the one that was installed is among them.
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=content) for content in package.hashes],
    )


def _model(entry: Entry) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType

    artifact = entry.opened(verify=False)
    manifest = artifact.manifest
    facts = {"runtime": manifest.runtime, "precision": manifest.precision, "variant": manifest.variant}
    return Component(
        name=entry.name,
        version=entry.version,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=entry.tag,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=artifact.digest)],
        properties=[Property(name=f"hone:{name}", value=value) for name, value in facts.items()],
    )
