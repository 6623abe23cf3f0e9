"""What models in Python need, in an image's lock: by version and hash, and never against the image's own packages."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from hone.artifact import Artifact, Manifest
from hone.errors import HoneError
from hone.k8s.tools.build_context import IMAGE
from hone.k8s.tools.requirements import requirements_lock
from hone.k8s.tools.sbom import read_lock
from hone.signature import Signature


@dataclass(frozen=True)
class Wheels:
    """A folder of wheels, the only place that packages come from."""

    folder: Path

    def add(self, name: str, version: str, needs: str = "") -> str:
        """Write an empty package's wheel; return its hash."""
        file = self.folder / f"{name}-{version}-py3-none-any.whl"
        info = f"{name}-{version}.dist-info"
        told = f"Requires-Dist: {needs}\n" if needs else ""
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{told}")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        return hashlib.sha256(file.read_bytes()).hexdigest()


def needing(**versions: str) -> Artifact:
    options = {"form": "predict", "call": "model:predict", "versions": versions}
    manifest = Manifest(
        name="m", runtime="python", precision="fp32", entry="e", signature=Signature(inputs=()), runtime_options=options
    )
    return Artifact(Path(), manifest)


def test_what_a_model_needs_is_locked_with_what_that_needs(tmp_path: Path) -> None:
    wheels = Wheels(tmp_path)
    first, second = wheels.add("visitcount", "2.1", "lowerlevel>=1"), wheels.add("lowerlevel", "1.4")
    lock = IMAGE / "cpu.lock"
    numpy = next(package.version for package in read_lock(lock) if package.name == "numpy")
    lines = requirements_lock([needing(visitcount="2.1+local", numpy=numpy)], lock, wheels=tmp_path)
    (tmp_path / "added.lock").write_text(lines)
    found = {package.name: package for package in read_lock(tmp_path / "added.lock")}
    assert {name: package.version for name, package in found.items()} == {"lowerlevel": "1.4", "visitcount": "2.1"}
    assert (found["visitcount"].hashes, found["lowerlevel"].hashes) == ((first,), (second,))


def test_what_does_not_go_into_an_image_is_told(tmp_path: Path) -> None:
    lock = IMAGE / "cpu.lock"
    assert requirements_lock([needing()], lock) == ""
    with pytest.raises(HoneError, match=r"a model was proven with numpy==1.0, the image has 2\.\d"):
        requirements_lock([needing(numpy="1.0")], lock)
    with pytest.raises(HoneError, match=r"uv can't lock visitcount==2\.1, which a model in Python needs: it failed"):
        requirements_lock([needing(visitcount="2.1")], lock, wheels=tmp_path)
