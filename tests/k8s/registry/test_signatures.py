"""Signatures of images, in a real registry, with keys that openssl makes and openssl checks."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from hone.errors import HoneError
from hone.k8s.tools.containerize import containerize
from hone.k8s.tools.packing import Request
from hone.k8s.tools.preflight.images import images
from hone.k8s.tools.registry import bundles, simple
from hone.k8s.tools.registry.client import OCI_INDEX, OCI_MANIFEST, ImagePlace, Registry, RegistryError, as_json
from hone.k8s.tools.registry.keys import MAKE, fingerprint, read_signing_key, read_verifying_key
from hone.k8s.tools.registry.signatures import SignatureError, sign, verify
from hone.k8s.tools.registry.simple import PAYLOAD, SIGNATURE, tag_of
from tests.k8s.registry import recorded
from tests.k8s.registry.signing import listing, never, openssl, put_image
from tests.k8s.test_preflight import deployment

needs = pytest.mark.skipif(
    not all(map(shutil.which, ("docker-registry", "openssl"))), reason="needs docker-registry and openssl"
)
pytestmark = needs


def test_signature_is_where_and_what_cosign_looks_for(host: str, keys: Path) -> None:
    digest = put_image(host, "hone/digits", "1")
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
    digest = put_image(host, "hone/several", "1")
    with pytest.raises(SignatureError, match=r"has no signature \(sha256-"):
        verify(image, public)
    sign(image, digest, other)
    with pytest.raises(SignatureError, match="isn't signed by this key; a signature that it has is another's"):
        verify(image, public)
    sign(image, digest, first)
    assert verify(image, public) == verify(image, other.public_key()) == digest
    assert verify(f"{host}/hone/several@{digest}", public) == digest
    # Signatures that are copied to another image, in both ways.
    second = put_image(host, "hone/several", "2", "arm64")
    there = Registry(ImagePlace.of(image))
    there.put_manifest(tag_of(second), there.manifest(tag_of(digest)))
    subject = replace(there, place=ImagePlace.of(f"{host}/hone/several@{second}")).described()
    for one in list(there.referrers(digest)):
        there.refer({**there.manifest(one["digest"]), "subject": subject})
    assert len(list(there.referrers(second))) == 2
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


def test_bundle_refers_to_the_image_and_openssl_finds_it_right(host: str, keys: Path, tmp_path: Path) -> None:
    digest = put_image(host, "hone/bundled", "1")
    sign(f"{host}/hone/bundled:1", digest, read_signing_key(keys / "cosign.key", never))
    there = Registry(ImagePlace.of(f"{host}/hone/bundled:1"))
    (found,) = there.referrers(digest)
    manifest = there.manifest(found["digest"])
    assert manifest["subject"] == there.described()
    assert manifest["artifactType"] == found["artifactType"] == bundles.BUNDLE
    bundle = json.loads(there.blob(there.layers(found["digest"])[0]["digest"]))
    envelope = bundle["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    statement = json.loads(payload)
    assert statement["predicateType"] == "https://sigstore.dev/cosign/sign/v1"
    assert statement["subject"] == [{"digest": {"sha256": digest.removeprefix("sha256:")}, "annotations": {}}]
    kind = envelope["payloadType"].encode()
    (tmp_path / "covered").write_bytes(b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload))
    (tmp_path / "signature").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    public = str(keys / "cosign.pub")
    assert openssl(tmp_path, "dgst", "-sha256", "-verify", public, "-signature", "signature", "covered")
    assert base64.b64decode(bundle["verificationMaterial"]["publicKey"]["hint"]).hex() == fingerprint(
        read_verifying_key(keys / "cosign.pub")
    )


def test_bundle_and_key_of_cosign_are_read(host: str, tmp_path: Path) -> None:
    pytest.importorskip("nacl")
    (tmp_path / "cosign.key").write_text(recorded.PRIVATE)
    (tmp_path / "cosign.pub").write_text(recorded.PUBLIC)
    public = read_verifying_key(tmp_path / "cosign.pub")
    private = read_signing_key(tmp_path / "cosign.key", lambda: "long")
    assert private.public_key() == public
    with pytest.raises(HoneError, match="or not this password"):
        read_signing_key(tmp_path / "cosign.key", lambda: "short")
    image = f"{host}/hone/cosigns:1"
    assert put_image(host, "hone/cosigns", "1") == recorded.DIGEST
    there = Registry(ImagePlace.of(image))
    _refer(there, recorded.BUNDLE)
    assert verify(image, public) == recorded.DIGEST


@pytest.mark.parametrize("what", ["payload", "sig", "kind", "nonsense"])
def test_bundle_that_was_changed_counts_for_nothing(what: str, host: str, tmp_path: Path) -> None:
    (tmp_path / "cosign.pub").write_text(recorded.PUBLIC)
    name = f"hone/changed-{what}"
    put_image(host, name, "1")
    envelope: dict[str, Any] = json.loads(json.dumps(recorded.BUNDLE["dsseEnvelope"]))
    if what == "payload":
        statement = base64.b64decode(envelope["payload"]).replace(b'"predicate":{}', b'"predicate":1 ')
        envelope["payload"] = base64.b64encode(statement).decode()
    elif what == "sig":
        envelope["signatures"] = [{"sig": base64.b64encode(b"0" * 71).decode()}, {"sig": "?"}]
    elif what == "kind":
        envelope["payloadType"] = "text/plain"
    else:
        envelope = {"payload": 1}
    there = Registry(ImagePlace.of(f"{host}/{name}:1"))
    _refer(there, {**recorded.BUNDLE, "dsseEnvelope": envelope})
    with pytest.raises(SignatureError):
        verify(f"{host}/{name}:1", read_verifying_key(tmp_path / "cosign.pub"))


def _refer(there: Registry, bundle: dict[str, Any]) -> None:
    """Let a bundle refer to an image, in the list that cosign keeps of them."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": bundles.EMPTY,
        "config": there.put(bundles.EMPTY, b"{}"),
        "layers": [there.put(bundles.BUNDLE, as_json(bundle))],
        "subject": there.described(),
        "annotations": {},
    }
    there.refer(manifest)


def test_registry_that_lists_what_refers_to_an_image_is_asked_for_all_of_it(
    host: str, keys: Path, tmp_path: Path
) -> None:
    openssl(tmp_path, *MAKE.split()[1:])
    first, other = (read_signing_key(folder / "cosign.key", never) for folder in (keys, tmp_path))
    digest = put_image(host, "hone/listed", "1")
    with listing(host) as front:
        image = f"{front}/hone/listed:1"
        for key in (other, first):
            sign(image, digest, key)
        there = Registry(ImagePlace.of(image))
        assert len(list(there.referrers(digest))) == 2  # on two pages
        assert there.manifest(digest.replace(":", "-"), OCI_INDEX) == {}  # the registry's own list is enough
        there.put_manifest(tag_of(digest), {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})
        assert verify(image, first.public_key()) == verify(image, other.public_key()) == digest


def test_key_that_signed_an_image_writes_nothing_again(host: str, keys: Path) -> None:
    key = read_signing_key(keys / "cosign.key", never)
    digest = put_image(host, "hone/twice", "1")
    there = Registry(ImagePlace.of(f"{host}/hone/twice:1"))
    for _ in range(2):
        sign(f"{host}/hone/twice:1", digest, key)
    assert len(there.layers(tag_of(digest))) == len(list(there.referrers(digest))) == 1


def test_first_bundle_does_not_hide_the_signatures_of_others(host: str, keys: Path, tmp_path: Path) -> None:
    openssl(tmp_path, *MAKE.split()[1:])
    first, other = (read_signing_key(folder / "cosign.key", never) for folder in (keys, tmp_path))
    image, digest = f"{host}/hone/hidden:1", put_image(host, "hone/hidden", "1")
    there = Registry(ImagePlace.of(image))
    simple.add(there, there.described(), other)
    assert sign(image, digest, first).endswith(
        "; not as a bundle, which would hide the signatures of others from cosign 3"
    )
    assert list(there.referrers(digest)) == []
    assert verify(image, first.public_key()) == verify(image, other.public_key()) == digest


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
