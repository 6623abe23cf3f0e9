"""Signatures of images, in a real registry, with keys that openssl makes and openssl checks."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hone.errors import HoneError
from hone.k8s.tools.containerize import containerize
from hone.k8s.tools.packing import Request
from hone.k8s.tools.preflight.images import images
from hone.k8s.tools.registry.client import OCI_MANIFEST, ImagePlace, Registry, RegistryError, as_json, digest_of
from hone.k8s.tools.registry.signatures import (
    MAKE,
    PAYLOAD,
    SIGNATURE,
    SignatureError,
    fingerprint,
    read_signing_key,
    read_verifying_key,
    sign,
    tag_of,
    verify,
)
from tests.k8s.test_preflight import deployment, push, registry

needs = pytest.mark.skipif(
    not all(map(shutil.which, ("docker-registry", "openssl"))), reason="needs docker-registry and openssl"
)
pytestmark = needs


def openssl(folder: Path, *words: str) -> str:
    done = subprocess.run(["openssl", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def never() -> str:
    raise AssertionError("no password is needed")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    openssl(folder, *MAKE.split()[1:])
    openssl(folder, "pkey", "-in", "cosign.key", "-pubout", "-out", "cosign.pub")
    return folder


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def test_signature_is_where_and_what_cosign_looks_for(host: str, keys: Path) -> None:
    digest = push(host, "hone/digits", "1")
    place = sign(f"{host}/hone/digits:1", digest, read_signing_key(keys / "cosign.key", never))
    assert place == f"{host}/hone/digits:sha256-{digest.removeprefix('sha256:')}.sig"
    base = f"http://{host}/v2/hone/digits"
    manifest = httpx.get(f"{base}/manifests/{tag_of(digest)}", headers={"accept": OCI_MANIFEST}).json()
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == PAYLOAD == "application/vnd.dev.cosign.simplesigning.v1+json"
    payload = httpx.get(f"{base}/blobs/{layer['digest']}").content
    assert len(payload) == layer["size"]
    assert json.loads(payload)["critical"] == {
        "identity": {"docker-reference": f"{host}/hone/digits"},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    config = httpx.get(f"{base}/blobs/{manifest['config']['digest']}").json()
    assert config["rootfs"]["diff_ids"] == [layer["digest"]]
    # Another program finds the signature right.
    (keys / "payload").write_bytes(payload)
    (keys / "signature").write_bytes(base64.b64decode(layer["annotations"][SIGNATURE]))
    said = openssl(keys, "dgst", "-sha256", "-verify", "cosign.pub", "-signature", "signature", "payload")
    assert said == "Verified OK\n"


def test_signatures_of_several_keys_lie_beside_each_other_and_another_images_counts_for_nothing(
    host: str, keys: Path, tmp_path: Path
) -> None:
    first, public = read_signing_key(keys / "cosign.key", never), read_verifying_key(keys / "cosign.pub")
    openssl(tmp_path, *MAKE.split()[1:])
    other = read_signing_key(tmp_path / "cosign.key", never)
    image = f"{host}/hone/several:1"
    digest = push(host, "hone/several", "1")
    with pytest.raises(SignatureError, match=r"has no signature \(sha256-"):
        verify(image, public)
    sign(image, digest, other)
    with pytest.raises(SignatureError, match="isn't signed by this key; signatures of others: 1"):
        verify(image, public)
    sign(image, digest, first)
    assert verify(image, public) == verify(image, other.public_key()) == digest
    assert verify(f"{host}/hone/several@{digest}", public) == digest
    # A signature that is copied to another image.
    base = f"http://{host}/v2/hone/several"
    copied = httpx.get(f"{base}/manifests/{tag_of(digest)}", headers={"accept": OCI_MANIFEST}).json()
    config = json.dumps({"architecture": "arm64", "os": "linux"}).encode()
    second = _put(base, config)
    kind = {"content-type": copied["mediaType"]}
    assert httpx.put(f"{base}/manifests/{tag_of(second)}", json=copied, headers=kind).status_code == 201
    with pytest.raises(SignatureError, match="isn't signed by this key"):
        verify(f"{host}/hone/several@{second}", public)
    findings = images(deployment(image, f"{host}/hone/several@{second}"), public)
    assert sorted((one.name, one.state) for one in findings) == [
        ("image", "ok"),
        ("image", "ok"),
        ("signature", "failed"),
        ("signature", "ok"),
    ]
    assert any("by its tag, which may be moved" in one.detail for one in findings)


def _put(base: str, config: bytes) -> str:
    """Put another image into a repository; return its digest."""
    host, _, name = base.removeprefix("http://").partition("/v2/")
    there = Registry(ImagePlace.of(f"{host}/{name}:2"))
    described = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": len(config)}
    described["digest"] = there.put_blob(config)
    manifest: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": []}
    there.put_manifest("2", manifest)
    return digest_of(as_json(manifest))


def test_keys_of_openssl_are_read_and_others_named(keys: Path, tmp_path: Path) -> None:
    plain = keys / "cosign.key"
    openssl(keys, "pkcs8", "-topk8", "-in", "cosign.key", "-passout", "pass:long", "-out", "locked.key")
    openssl(keys, "ec", "-in", "cosign.key", "-out", "sec1.key")
    mine = fingerprint(read_verifying_key(keys / "cosign.pub"))
    asked = [plain, keys / "locked.key", keys / "sec1.key"]
    assert {fingerprint(read_signing_key(file, lambda: "long").public_key()) for file in asked} == {mine}
    with pytest.raises(HoneError, match="or not this password; make one with: openssl"):
        read_signing_key(keys / "locked.key", lambda: "short")
    openssl(tmp_path, "genpkey", "-algorithm", "ed25519", "-out", "other.key")
    with pytest.raises(HoneError, match="not a key of ECDSA P-256"):
        read_signing_key(tmp_path / "other.key", never)
    (tmp_path / "cosigns.key").write_text("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")
    with pytest.raises(HoneError, match="encrypted in cosign's own way; make a key with: openssl"):
        read_signing_key(tmp_path / "cosigns.key", never)
    with pytest.raises(HoneError, match=r"gone\.pub: cannot be read: No such file"):
        read_verifying_key(tmp_path / "gone.pub")
    with pytest.raises(HoneError, match="no public key in PEM; openssl pkey"):
        read_verifying_key(plain)


def test_registry_that_is_gone_and_a_signature_without_a_push_are_told(keys: Path) -> None:
    key = read_signing_key(keys / "cosign.key", never)
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1:9 can't be given the signature of"):
        sign("127.0.0.1:9/hone/digits:1", "sha256:" + "a" * 64, key)
    with pytest.raises(HoneError, match="--sign-key: a signature lies beside the image in its registry; give --push"):
        containerize(Request("digits"), print, key=key)
