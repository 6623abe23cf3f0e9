"""Build a container image of a stored model: `hone containerize`.

`bentoml build` packs the code and the model; the image around it is our own Containerfile, because the one that
`bentoml containerize` writes runs apt-get, installs without hashes, keeps the installer and can't be built offline.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name

from hone import __version__, store
from hone.errors import HoneError, UnavailableError, one_line
from hone.trust import Policy, open_to_run
from k8s.sbom import Package, bill_of_materials, read_lock

HERE = Path(__file__).parent / "image"
CODE_ROOT = Path(__file__).resolve().parent.parent
CODE = ("services/*.py", "services/batching/*.py", "services/protocols/*.py", "hone/*.py", "hone/runtimes/*.py")
TAG = re.compile(r"^[a-z0-9]+([._/:-][A-Za-z0-9._-]+)*$")


@dataclass(frozen=True)
class Kind:
    """What an image is for.

    Attributes:
        name: also of its lock file, `image/NAME.lock`.
        base: the image it is built on.
        runtimes: artifacts of these can be in it.
    """

    name: str
    base: str
    runtimes: tuple[str, ...]


KINDS = {
    kind.name: kind
    for kind in (
        Kind("cpu", "docker.io/library/python:3.11-slim-bookworm", ("onnx",)),
        Kind("cuda", "docker.io/nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04", ("onnx",)),
        Kind("tensorrt", "docker.io/nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04", ("onnx", "tensorrt")),
    )
}
ENGINES = ("docker", "podman", "buildah")


@dataclass(frozen=True)
class Request:
    """What to build.

    Attributes:
        model: NAME, NAME:VARIANT or a full tag.
        kind: cpu, cuda or tensorrt.
        tag: of the image; default: localhost/hone/NAME:VERSION-KIND.
        base: in place of the kind's base; must have Python 3.11 or 3.12 with its venv module.
        wheels: a folder of wheels; nothing is fetched then.
        index_url: a package mirror; default: $PIP_INDEX_URL.
        ca: a file of certificates that the mirror's is checked against; default: $PIP_CERT.
        engine: docker, podman or buildah; default: the first that is installed.
        labels: more labels of the image.
    """

    model: str
    kind: str = "cpu"
    tag: str = ""
    base: str = ""
    wheels: Path | None = None
    index_url: str = ""
    ca: Path | None = None
    engine: str = ""
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Image:
    """What was built."""

    tag: str
    digest: str
    size_mb: float
    above_base_mb: float
    labels: dict[str, str]

    def summary(self) -> str:
        return f"{self.tag}: {self.size_mb:,.0f} MB, {self.above_base_mb:,.0f} MB above its base ({self.digest[:19]})"


def containerize(request: Request, progress: Callable[[str], None], context: Path | None = None) -> Image | None:
    """Build an image.

    Args:
        request: what to build.
        progress: told what happens.
        context: write the build context here and stop, for a build elsewhere.

    Raises:
        StoreError: no such model, or none of its variants runs in such an image.
        UnavailableError: no container engine is installed.
        HoneError: a file is missing, or the engine failed; the message is its last line.
    """
    kind = KINDS[request.kind]
    if request.tag and not TAG.match(request.tag):
        raise HoneError(
            f"--tag: '{request.tag}' is no image name; write one such as registry.example.com/hone/digits:1"
        )
    engine = "" if context else find_engine(request.engine)
    entries = _entries(request.model, kind)
    tag = request.tag or f"localhost/hone/{entries[0].name}:{entries[0].version}-{kind.name}"
    with tempfile.TemporaryDirectory(prefix="hone-image-") as scratch:
        folder = context or Path(scratch) / "context"
        progress(f"packing {', '.join(entry.tag for entry in entries)}")
        facts = write_context(folder, request, entries)
        if context:
            command = build_command("buildah", tag, request, facts, context)
            progress(f"wrote {context}; build it with: {shlex.join(command)}")
            return None
        progress(f"building {tag} with {engine}")
        _run([*build_command(engine, tag, request, facts, folder)], engine)
    return _inspect(engine, tag, request.base or kind.base, facts["labels"])


def _entries(model: str, kind: Kind) -> list[store.Entry]:
    """Return the artifacts that go into the image, best first: as a service would choose, less what it can't run."""
    name = model.partition(":")[0]
    found = [store.resolve(model)] if ":" in model and not model.endswith(":latest") else store.serving_set(name)
    fitting = [entry for entry in found if entry.artifact and entry.artifact.runtime in kind.runtimes]
    if not fitting:
        have = ", ".join(f"{entry.tag} ({entry.artifact.runtime})" for entry in found if entry.artifact)
        raise HoneError(f"no variant of '{model}' runs in a {kind.name} image: {have or 'none is readable'}")
    policy = Policy.from_environment()
    for entry in fitting:
        open_to_run(entry, policy)
    return fitting


def write_context(folder: Path, request: Request, entries: Sequence[store.Entry]) -> dict[str, Any]:
    """Write the build context: Containerfile, lock, bento with its models, bill of materials; return labels and times.

    Raises:
        HoneError: the folder isn't empty, or a file is missing.
    """
    if folder.exists() and any(folder.iterdir()):
        raise HoneError(f"{folder} is not empty; give a new folder, so that nothing strange gets into the image")
    build = folder / "build"
    build.mkdir(parents=True)
    shutil.copyfile(HERE / "Containerfile", folder / "Containerfile")
    lock = HERE / f"{request.kind}.lock"
    shutil.copyfile(lock, build / "requirements.lock")
    packages = read_lock(lock)
    if request.wheels:
        _copy_wheels(request.wheels, build / "wheels", packages, request.kind)
    ca = request.ca or (Path(os.environ["PIP_CERT"]) if os.environ.get("PIP_CERT") else None)
    if ca and not request.wheels:
        if not ca.is_file():
            raise HoneError(f"--ca: {ca} does not exist")
        shutil.copyfile(ca, build / "ca.pem")
    artifacts = [entry.opened(verify=False) for entry in entries]
    manifests = [artifact.manifest for artifact in artifacts]
    epoch = int(datetime.datetime.fromisoformat(max(manifest.created for manifest in manifests)).timestamp())
    _pack(build / "bento", entries, epoch)
    revision = _git_revision()
    labels = {
        "org.opencontainers.image.title": entries[0].name,
        "org.opencontainers.image.version": entries[0].version,
        "org.opencontainers.image.created": datetime.datetime.fromtimestamp(epoch, datetime.UTC).isoformat(),
        "org.opencontainers.image.description": f"{entries[0].name} served by Hone {__version__}",
        **({"org.opencontainers.image.revision": revision} if revision else {}),
        "dev.hone.kind": request.kind,
        "dev.hone.models": ",".join(entry.tag for entry in entries),
        "dev.hone.digests": ",".join(f"sha256:{artifact.digest}" for artifact in artifacts),
        "dev.hone.lineage": ";".join(">".join(step.name for step in manifest.lineage) for manifest in manifests),
        **request.labels,
    }
    sbom = bill_of_materials(labels, packages, entries, epoch)
    (build / "sbom.cdx.json").write_text(sbom)
    return {"labels": labels, "epoch": epoch}


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
    packages = read_lock(HERE / f"{kind}.lock")
    target.mkdir(parents=True, exist_ok=True)
    # Without the lock's conditions: the image's Python may be another than the one that runs here.
    lines = [f"{p.name}=={p.version} {' '.join(f'--hash=sha256:{h}' for h in p.hashes)}" for p in packages]
    with tempfile.TemporaryDirectory(prefix="hone-wheels-") as scratch:
        file = Path(scratch) / "requirements.txt"
        file.write_text("\n".join(lines) + "\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        _run([*command, "--only-binary=:all:", "--dest", str(target), "-r", str(file)], "pip")
    return len(list(target.glob("*.whl")))


def _pack(target: Path, entries: Sequence[store.Entry], epoch: int) -> None:
    """Let BentoML build the bento, and put the models into it; nothing in it tells when that was."""
    with tempfile.TemporaryDirectory(prefix="hone-bento-") as scratch:
        home = Path(scratch) / "home"
        models = home / "models"
        for entry in entries:
            shutil.copytree(entry.path, models / entry.name / entry.version)
        bentofile = Path(scratch) / "bentofile.yaml"
        content = {
            "service": "services.model:Model",
            "name": entries[0].name,
            "include": list(CODE),
            "python": {"lock_packages": False},
        }
        bentofile.write_text(yaml.safe_dump(content))
        reference = entries[0].tag if len(entries) == 1 else entries[0].name
        environment = {
            **os.environ,
            "BENTOML_HOME": str(home),
            "HONE_MODEL": reference,
            "BENTOML_DO_NOT_TRACK": "True",
        }
        command = [sys.executable, "-m", "bentoml", "build", "-f", str(bentofile), "--version", "image",
                   "--output", "tag", str(CODE_ROOT)]  # fmt: skip
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=CODE_ROOT)
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise HoneError(f"bentoml build failed: {lines[-1] if lines else done.returncode}")
        bento = home / "bentos" / entries[0].name / "image"
        shutil.copytree(bento / "src", target / "src", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        record = yaml.safe_load((bento / "bento.yaml").read_text())
        record["creation_time"] = datetime.datetime.fromtimestamp(epoch, datetime.UTC).isoformat()
        (target / "bento.yaml").write_text(yaml.safe_dump(record, sort_keys=True))
        shutil.copytree(models, target / "models")


def _git_revision() -> str:
    """Return the commit of the code, with `-dirty` when it was changed since; empty outside a checkout."""
    answers = []
    for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", "hone", "services", "k8s"]):
        try:
            done = subprocess.run(["git", "-C", str(CODE_ROOT), *arguments], capture_output=True, text=True)
        except OSError:
            return ""
        if done.returncode:
            return ""
        answers.append(done.stdout.strip())
    return answers[0] + ("-dirty" if answers[1] else "")


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
        "MODEL": facts["labels"]["org.opencontainers.image.title"],
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


def _run(command: list[str], engine: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        telling = [line for line in lines if re.search(r"error|denied|no such|not found|failed", line, re.IGNORECASE)]
        raise HoneError(f"{engine} failed: {one_line(Exception((telling or lines or ['no message'])[-1]))}")
    return done.stdout


def _inspect(engine: str, tag: str, base: str, labels: dict[str, str]) -> Image:
    sizes, digest = [], ""
    for name in (tag, base):
        if engine == "buildah":
            listed = json.loads(_run(["buildah", "images", "--json", name], engine))[0]
            sizes.append(_bytes(str(listed["size"])))
            digest = digest or f"sha256:{listed['id']}"
        else:
            listed = json.loads(_run([engine, "image", "inspect", name], engine))[0]
            sizes.append(float(listed["Size"]))
            digest = digest or str(listed["Id"])
    return Image(tag, digest, round(sizes[0] / 1e6, 1), round((sizes[0] - sizes[1]) / 1e6, 1), labels)


def _bytes(text: str) -> float:
    """Return what buildah prints as `412 MB`, in bytes."""
    number, unit = text.split()
    return float(number) * {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9}[unit.upper()]
