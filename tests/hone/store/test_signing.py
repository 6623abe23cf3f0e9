"""Who vouches for an artifact, and what that is worth after somebody has touched it."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from hone import store
from hone.cli.main import cli
from hone.store import archive
from hone.store.keys import Keys
from hone.store.signing import standing
from tests.models.dense import dense_artifact


def hone(*arguments: str | Path, text: str | None = None) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], input=text)


def key_pair(folder: Path, name: str, password: bytes | None = None) -> tuple[Path, Path]:
    """Write a private key, and its public half as `NAME.pem` into the folder `trusted`."""
    key = ed25519.Ed25519PrivateKey.generate()
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private, public = folder / f"{name}.key", folder / f"{name}-trusted" / f"{name}.pem"
    public.parent.mkdir()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock))
    kinds = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(*kinds))
    return private, public


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return key_pair(tmp_path, "release")


@pytest.fixture
def signed(tmp_path: Path, pair: tuple[Path, Path]) -> store.Entry:
    entry = store.put(dense_artifact(tmp_path / "a"), "dense", "v1")
    assert hone("models", "sign", "dense:v1", "--key", pair[0]).exit_code == 0
    return entry


def worth(entry: store.Entry, public: Path) -> str:
    return standing(entry.path, entry.name, entry.version, Keys.read(str(public))).describe()


def test_signature_names_the_trusted_key(signed: store.Entry, pair: tuple[Path, Path]) -> None:
    assert worth(signed, pair[1]) == worth(signed, pair[1].parent) == "signed by release"
    assert standing(signed.path, "dense", "v1", Keys()).describe().startswith("signed by unknown key ")


def test_list_and_show_tell_signed_from_unsigned(
    signed: store.Entry, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(dense_artifact(tmp_path / "b"), "dense", "v2")
    monkeypatch.setenv("HONE_TRUSTED_KEYS", str(pair[1].parent))
    lines = {line.split()[0]: line for line in hone("models", "list").output.splitlines()}
    assert lines["dense:v1"].endswith("signed by release")
    assert lines["dense:v2"].endswith("unsigned")
    text = hone("models", "show", "dense:v1").output
    assert "signature signed by release" in text
    assert "origin    hone optimize" in text


@pytest.mark.parametrize("touched", ["model.onnx", "artifact.json", "signature.json"])
def test_tampering_is_found(signed: store.Entry, pair: tuple[Path, Path], touched: str) -> None:
    file = signed.path / touched
    if touched == "artifact.json":  # with hashes that fit: only the signature can tell
        (signed.path / "model.onnx").write_bytes(b"other weights")
        manifest = signed.opened(verify=False).manifest
        from hone.artifact import seal

        seal(signed.path, manifest)
        signed.opened()
    elif touched == "signature.json":
        envelope = json.loads(file.read_text())
        envelope["signatures"][0]["sig"] = envelope["signatures"][0]["sig"][::-1].replace("=", "") + "=="
        file.write_text(json.dumps(envelope))
    else:
        file.write_bytes(file.read_bytes() + b"x")
    result = hone("models", "verify", "dense:v1", "--key", pair[1])
    assert result.exit_code == 1
    assert "corrupt  dense:v1" in result.output
    if touched != "model.onnx":
        assert "signature broken" in worth(signed, pair[1])


def test_another_key_is_a_stranger(signed: store.Entry, tmp_path: Path) -> None:
    _, other = key_pair(tmp_path, "other")
    assert worth(signed, other).startswith("signed by unknown key")
    assert hone("models", "verify", "dense:v1", "--key", other).exit_code == 1


def test_signer_is_who_signed_not_whose_key_is_written_beside(
    signed: store.Entry, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """A stranger's signature with the trusted key written into the envelope."""
    stranger, _ = key_pair(tmp_path, "stranger")
    trusted = json.loads((signed.path / "signature.json").read_text())["signatures"][0]["key"]
    (signed.path / "signature.json").unlink()
    assert hone("models", "sign", "dense:v1", "--key", stranger).exit_code == 0
    envelope = json.loads((signed.path / "signature.json").read_text())
    envelope["signatures"][0]["key"] = trusted
    (signed.path / "signature.json").write_text(json.dumps(envelope))
    assert "signature broken" in worth(signed, pair[1])


@pytest.mark.parametrize("tag", ["dense:v2", "other:v1"])
def test_signature_is_of_one_name_and_version(
    signed: store.Entry, pair: tuple[Path, Path], tmp_path: Path, tag: str
) -> None:
    """An old, signed version can't be passed off as a new one, nor one model as another."""
    import yaml

    file = archive.export(signed, tmp_path)
    folder = tmp_path / "unpacked"
    with tarfile.open(file) as packed:
        packed.extractall(folder, filter="data")
    record = yaml.safe_load((folder / "model.yaml").read_text())
    record["name"], record["version"] = tag.split(":")
    (folder / "model.yaml").write_text(yaml.safe_dump(record))
    with tarfile.open(tmp_path / "replay.tar.gz", "w:gz") as packed:
        for path in sorted(folder.iterdir()):
            packed.add(path, path.name)
    for options in ([], ["--key", pair[1]]):
        result = hone("models", "import", tmp_path / "replay.tar.gz", *options)
        assert result.exit_code == 1
        assert "signature broken: it was made for dense:v1" in result.output


def test_archive_carries_the_signature_and_a_key_lets_only_signed_ones_in(
    signed: store.Entry, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    good = archive.export(signed, tmp_path / "good.tar.gz")
    (signed.path / "signature.json").unlink()
    bare = archive.export(signed, tmp_path / "bare.tar.gz")
    store.remove(signed)
    refused = hone("models", "import", bare, "--key", pair[1])
    assert refused.exit_code == 1
    assert "unsigned; only what release signed is let in" in refused.output
    assert "signed by release" in hone("models", "verify", good, "--key", pair[1]).output
    assert hone("models", "verify", bare, "--key", pair[1]).exit_code == 1
    assert hone("models", "import", good, "--key", pair[1]).exit_code == 0
    assert worth(store.resolve("dense"), pair[1]) == "signed by release"
    assert "origin    hone models import, signed by release" in hone("models", "show", "dense").output


def test_two_signers_stand_side_by_side(signed: store.Entry, pair: tuple[Path, Path], tmp_path: Path) -> None:
    second, public = key_pair(tmp_path, "audit")
    assert hone("models", "sign", "dense:v1", "--key", second).exit_code == 0
    assert worth(signed, pair[1]) == "signed by release"
    assert worth(signed, public) == "signed by audit"


def test_key_with_a_password_is_asked_for_it(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "locked", b"secret")
    entry = store.put(dense_artifact(tmp_path / "a"), "dense", "v1")
    wrong = hone("models", "sign", "dense:v1", "--key", private, text="guess\n")
    assert wrong.exit_code == 1
    assert "not this password" in wrong.output
    assert not (entry.path / "signature.json").exists()
    assert hone("models", "sign", "dense:v1", "--key", private, text="secret\n").exit_code == 0
    assert worth(entry, public) == "signed by locked"


def test_wrong_keys_are_one_line(tmp_path: Path, signed: store.Entry, pair: tuple[Path, Path]) -> None:
    other = tmp_path / "rsa.pem"
    other.write_bytes(
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    (tmp_path / "empty").mkdir()
    for key, message in (
        (other, "not an Ed25519 key"),
        (pair[0], "no public key"),
        (tmp_path / "none.pem", "No such file"),
        (tmp_path / "empty", "no .pem or .pub file"),
    ):
        result = hone("models", "verify", "dense:v1", "--key", key)
        assert (result.exit_code, len(result.output.splitlines())) == (1, 1)
        assert message in result.output
    assert "no private key" in hone("models", "sign", "dense:v1", "--key", pair[1]).output


@pytest.mark.parametrize("text", ["", "{", "[]", '{"payload": "!", "payloadType": "x", "signatures": []}'])
def test_signature_that_is_none_is_broken(signed: store.Entry, pair: tuple[Path, Path], text: str) -> None:
    (signed.path / "signature.json").write_text(text)
    assert worth(signed, pair[1]).startswith("signature broken")


def test_openssl_makes_the_keys_that_the_documentation_says(tmp_path: Path) -> None:
    import subprocess

    if not shutil.which("openssl"):
        pytest.skip("no openssl here")
    entry = store.put(dense_artifact(tmp_path / "a"), "dense", "v1")
    key, public = tmp_path / "key.pem", tmp_path / "release.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
    assert hone("models", "sign", "dense:v1", "--key", key).exit_code == 0
    assert worth(entry, public) == "signed by release"
