"""The build context of an image: Containerfile, lock file, bento with its models, bill of materials.

`bentoml build` packs the code and the models; the image around it is our own Containerfile, because the one that
`bentoml containerize` writes runs apt-get, installs without hashes, keeps the installer and can't be built offline.
"""

from __future__ import annotations

import datetime
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name

from hone import __version__
from hone.describe.revision import git_revision
from hone.errors import HoneError
from hone.processes import output_of
from hone.steps.ready import packages_of

from .packing import Packing, Request
from .requirements import requirements_lock
from .sbom import Package, bill_of_materials, read_lock
from .serving_code import serving_code

IMAGE = Path(__file__).parent.parent / "image"
STEPS_LOCK = IMAGE / "steps.lock"
"""What steps may need; an image gets what those of its models do."""


def write_context(folder: Path, request: Request, packing: Packing) -> dict[str, Any]:
    """Write the context into a new folder; return the image's labels, its time and what it serves.

    Raises:
        HoneError: the folder isn't empty, or a file is missing.
    """
    if folder.exists() and any(folder.iterdir()):
        raise HoneError(f"{folder} is not empty; give a new folder, so that nothing strange gets into the image")
    build = folder / "build"
    build.mkdir(parents=True)
    shutil.copyfile(IMAGE / "Containerfile", folder / "Containerfile")
    lock = build / "requirements.lock"
    lock.write_text((IMAGE / f"{request.kind}.lock").read_text() + _steps_lock(packing))
    artifacts = [entry.opened(verify=False) for entry in packing.entries]
    added = requirements_lock(artifacts, lock, request.index_url, request.wheels)
    lock.write_text(lock.read_text() + added)
    packages = read_lock(lock)
    if request.wheels:
        _copy_wheels(request.wheels, build / "wheels", packages, request.kind)
    ca = request.ca or (Path(os.environ["PIP_CERT"]) if os.environ.get("PIP_CERT") else None)
    if ca and not request.wheels:
        if not ca.is_file():
            raise HoneError(f"--ca: {ca} does not exist")
        shutil.copyfile(ca, build / "ca.pem")
    created = max(entry.opened(verify=False).manifest.created for entry in packing.entries)
    epoch = int(datetime.datetime.fromisoformat(created).timestamp())
    _pack_bento(build / "bento", packing, epoch)
    labels = _labels(request, packing, epoch)
    sbom = bill_of_materials(labels, packages, packing.entries, epoch)
    (build / "sbom.cdx.json").write_text(sbom)
    return {"labels": labels, "epoch": epoch, "served": packing.served}


def _steps_lock(packing: Packing) -> str:
    """Return the lines of a lock that the steps of the models need, and no others of `steps.lock`."""
    needed = {name for entry in packing.entries for name in packages_of(entry.opened(verify=False))}
    blocks = re.split(r"\n(?=[A-Za-z0-9])", STEPS_LOCK.read_text().rstrip())
    return "".join(f"{block}\n" for block in blocks if block.partition("==")[0] in needed)


def _labels(request: Request, packing: Packing, epoch: int) -> dict[str, str]:
    """Return the image's labels: those of the OCI, and what it holds by tag, digest and lineage."""
    first = packing.entries[0]
    artifacts = [entry.opened(verify=False) for entry in packing.entries]
    revision = git_revision("hone", "services", "k8s")
    return {
        "org.opencontainers.image.title": first.name,
        "org.opencontainers.image.version": first.version,
        "org.opencontainers.image.created": datetime.datetime.fromtimestamp(epoch, datetime.UTC).isoformat(),
        "org.opencontainers.image.description": f"{first.name} served by Hone {__version__}",
        **({"org.opencontainers.image.revision": revision} if revision else {}),
        "dev.hone.kind": request.kind,
        "dev.hone.served": ",".join(packing.served),
        "dev.hone.models": ",".join(entry.tag for entry in packing.entries),
        "dev.hone.digests": ",".join(f"sha256:{artifact.digest}" for artifact in artifacts),
        "dev.hone.lineage": ";".join(
            ">".join(step.name for step in artifact.manifest.lineage) for artifact in artifacts
        ),
        **request.labels,
    }


def _copy_wheels(source: Path, target: Path, packages: Sequence[Package], kind: str) -> None:
    """Copy the wheels that the lock names; what else lies in the folder stays out of the image's build."""
    if not source.is_dir():
        raise HoneError(f"--wheels: {source} is no folder")
    target.mkdir()
    found: dict[str, list[Path]] = {}
    for file in source.glob("*.whl"):
        found.setdefault(canonicalize_name(file.name.split("-", 1)[0]), []).append(file)
    missing = []
    for package in packages:
        files = [file for file in found.get(package.name, []) if file.name.split("-")[1] == package.version]
        for file in files:
            shutil.copyfile(file, target / file.name)
        if not files and not package.sometimes:
            missing.append(f"{package.name}=={package.version}")
    if missing:
        raise HoneError(
            f"--wheels: {source} lacks {', '.join(missing[:5])}{' and more' if len(missing) > 5 else ''}; "
            f"fill it with: hone k8s wheels --kind {kind} --out {source}"
        )


def fetch_wheels(kind: str, target: Path) -> int:
    """Download what an image of this kind installs, for a build without a network; return the number of wheels.

    Raises:
        HoneError: pip failed; the message is its last line.
    """
    packages = [*read_lock(IMAGE / f"{kind}.lock"), *read_lock(STEPS_LOCK)]
    target.mkdir(parents=True, exist_ok=True)
    # Without the lock's conditions: the image's Python may be another than the one that runs here.
    lines = [f"{p.name}=={p.version} {' '.join(f'--hash=sha256:{h}' for h in p.hashes)}" for p in packages]
    with tempfile.TemporaryDirectory(prefix="hone-wheels-") as scratch:
        file = Path(scratch) / "requirements.txt"
        file.write_text("\n".join(lines) + "\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        output_of([*command, "--only-binary=:all:", "--dest", str(target), "-r", str(file)], "pip")
    return len(list(target.glob("*.whl")))


def _pack_bento(target: Path, packing: Packing, epoch: int) -> None:
    """Let BentoML build the bento, and put the models into it; nothing in it tells when that was."""
    first = packing.entries[0]
    with tempfile.TemporaryDirectory(prefix="hone-bento-") as scratch:
        home = Path(scratch) / "home"
        models = home / "models"
        for entry in packing.entries:
            shutil.copytree(entry.path, models / entry.name / entry.version)
        code = Path(scratch) / "code"
        for place, file in serving_code().items():
            (code / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, code / place)
        bentofile = Path(scratch) / "bentofile.yaml"
        content = {
            "service": "hone.services.model:Model",
            "name": first.name,
            "include": ["hone/**/*.py"],
            "python": {"lock_packages": False},
        }
        bentofile.write_text(yaml.safe_dump(content))
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HONE_")},
            "BENTOML_HOME": str(home),
            "HONE_MODEL": first.tag,
            "HONE_MODELS": ",".join(entry.tag for entry in packing.entries[1:]),
            "BENTOML_DO_NOT_TRACK": "True",
            "HONE_TRUST_CODE": "1",  # what is packed was let in before, and is a part of the bento
        }
        command = [sys.executable, "-m", "bentoml", "build", "-f", str(bentofile), "--version", "image",
                   "--output", "tag", str(code)]  # fmt: skip
        output_of(command, "bentoml build", folder=code, variables=environment)
        bento = home / "bentos" / first.name / "image"
        shutil.copytree(bento / "src", target / "src", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        record = yaml.safe_load((bento / "bento.yaml").read_text())
        record["creation_time"] = datetime.datetime.fromtimestamp(epoch, datetime.UTC).isoformat()
        (target / "bento.yaml").write_text(yaml.safe_dump(record, sort_keys=True))
        shutil.copytree(models, target / "models")
