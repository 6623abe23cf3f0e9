"""Images that Hone signs and cosign checks, and the other way: with the program itself, where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from hone.k8s.tools.preflight.images import signed
from hone.k8s.tools.registry.client import ImagePlace, Registry
from hone.k8s.tools.registry.keys import MAKE, read_signing_key, read_verifying_key
from hone.k8s.tools.registry.signatures import sign
from tests.k8s.registry.signing import never, openssl, put_image

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("docker-registry", "openssl", "cosign"))),
    reason="needs cosign, docker-registry and openssl",
)
WAYS = {"bundles": (), "simple": ("--new-bundle-format=false",)}
"""What cosign 3 writes and looks for by itself, and what cosign 2 did."""


def cosign(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "COSIGN_PASSWORD": "long", "HOME": str(folder)}
    return subprocess.run(["cosign", *words], cwd=folder, env=variables, capture_output=True, text=True, timeout=120)


def accepts(folder: Path, image: str, *options: str) -> bool:
    """Return whether cosign accepts an image by `cosign.pub` in a folder."""
    done = cosign(folder, "verify", "--key", "cosign.pub", "--insecure-ignore-tlog", *options, image)
    assert (done.returncode == 0) == ("The signatures were verified against the specified public key" in done.stderr)
    return done.returncode == 0


@pytest.fixture(scope="module")
def cosigns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair of keys that cosign made."""
    folder = tmp_path_factory.mktemp("cosigns")
    done = cosign(folder, "generate-key-pair")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_cosign_accepts_what_hone_signed_and_refuses_another_key_and_another_image(
    way: str, host: str, keys: Path, tmp_path: Path
) -> None:
    openssl(tmp_path, *MAKE.split()[1:])
    openssl(tmp_path, "pkey", "-in", "cosign.key", "-pubout", "-out", "cosign.pub")
    image = f"{host}/hone/by-hone-{way}:1"
    digest = put_image(host, f"hone/by-hone-{way}", "1")
    assert not accepts(keys, image, *WAYS[way])
    sign(image, digest, read_signing_key(keys / "cosign.key", never))
    assert accepts(keys, image, *WAYS[way])
    assert not accepts(tmp_path, image, *WAYS[way])
    # The tag is moved to another image, for which the signatures are copied.
    there = Registry(ImagePlace.of(image))
    second = put_image(host, f"hone/by-hone-{way}", "1", "arm64")
    moved = replace(there, place=ImagePlace.of(f"{host}/hone/by-hone-{way}@{second}")).described()
    there.put_manifest(f"{second.replace(':', '-')}.sig", there.manifest(f"{digest.replace(':', '-')}.sig"))
    (bundle,) = there.referrers(digest)
    there.refer({**there.manifest(bundle["digest"]), "subject": moved})
    assert not accepts(keys, image, *WAYS[way])
    assert accepts(keys, f"{host}/hone/by-hone-{way}@{digest}", *WAYS[way])


@pytest.mark.parametrize("way", WAYS)
def test_what_cosign_signed_with_its_own_key_is_accepted_beside_what_hone_signed(
    way: str, host: str, keys: Path, cosigns: Path
) -> None:
    public = read_verifying_key(cosigns / "cosign.pub")
    image = f"{host}/hone/by-cosign-{way}:1"
    digest = put_image(host, f"hone/by-cosign-{way}", "1")
    assert signed(image, public).state == "failed"
    offline = ("--use-signing-config=false", "--tlog-upload=false")
    done = cosign(cosigns, "sign", "--yes", "--key", "cosign.key", *offline, *WAYS[way], f"{image}@{digest}")
    assert done.returncode == 0, done.stderr
    assert signed(image, public).state == "ok"
    assert signed(image, read_verifying_key(keys / "cosign.pub")).state == "failed"
    sign(image, digest, read_signing_key(keys / "cosign.key", never))
    assert accepts(keys, image) and accepts(cosigns, image)
    assert signed(image, read_verifying_key(keys / "cosign.pub")).state == "ok"


def test_hone_signs_with_a_key_that_cosign_made(host: str, cosigns: Path) -> None:
    pytest.importorskip("nacl")
    digest = put_image(host, "hone/cosigns-key", "1")
    image = f"{host}/hone/cosigns-key:1"
    sign(image, digest, read_signing_key(cosigns / "cosign.key", lambda: "long"))
    assert accepts(cosigns, image)
