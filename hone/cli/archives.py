"""`hone models sign`, `export`, `import` and `verify`: artifacts that travel, and who vouches for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hone.cli.auditing import audited
from hone.errors import HoneError, StoreError

if TYPE_CHECKING:
    from hone.store import Entry
    from hone.store.keys import Keys
    from hone.store.trust import Policy


def policy_of(key: str | None = None, *, code: bool = False) -> Policy:
    """Return what the environment trusts, or the key that was given in place of its keys."""
    from hone.store.trust import Policy

    return Policy.of(code=code, keys=key) if key else Policy.from_environment(code=code)


@click.command("sign")
@click.argument("model")
@click.option("--key", required=True, type=click.Path(path_type=Path), help="Ed25519 private key, a PEM file.")
@audited("models sign", "model")
def sign_command(model: str, key: Path) -> None:
    """Vouch for MODEL: its files, all that decides what it computes, its name and version.

    Make a key with: openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout -out release.pem
    """
    from hone import store
    from hone.store.signing import sign

    entry = store.resolve(model)
    entry.opened()
    keyid = sign(
        entry.path, entry.name, entry.version, key, lambda: click.prompt("password", hide_input=True, err=True)
    )
    click.echo(f"signed {entry.tag} with key {keyid}")


@click.command("export")
@click.argument("model")
@click.argument("target", type=click.Path(path_type=Path), default=".")
@audited("models export", "model", "target")
def export_command(model: str, target: Path) -> None:
    """Write MODEL as a .tar.gz to TARGET, a file or a folder, with its signature."""
    from hone import store
    from hone.store import archive

    click.echo(f"wrote {archive.export(store.resolve(model), target)}")


max_size = click.option(
    "--max-size", type=click.FloatRange(min=0, min_open=True), metavar="GB", help="Largest unpacked size. [default: 20]"
)
key_option = click.option(
    "--key", type=click.Path(), help="Trust what this public key (or folder of keys) signed only."
)


@click.command("import")
@click.argument("file", metavar="ARCHIVE", type=click.Path(path_type=Path))
@key_option
@click.option("--trust-code", is_flag=True, help="Let in a model that brings code, and let it run here.")
@max_size
@audited("models import", "file")
def import_command(file: Path, key: str | None, trust_code: bool, max_size: float | None) -> None:
    """Add an exported ARCHIVE to the store, after checking what it is and every hash.

    An archive is data: a model that would run code of its author is refused, unless somebody trusted signed it.
    """
    from hone import store
    from hone.store import archive
    from hone.store.trust import Admission

    entry = archive.import_archive(
        file, max_bytes=_bytes(max_size), admit=Admission(policy_of(key, code=trust_code), file)
    )
    click.echo(f"stored {entry.tag}")
    others = [other for other in store.entries(entry.name) if other.tag != entry.tag and other.eligible]
    if others and entry.eligible and store.resolve(entry.name).tag == entry.tag:
        click.echo(f"'{entry.name}' now means this one; before it was {others[0].tag}")


@click.command("verify")
@click.argument("model", required=False)
@key_option
@max_size
def verify_command(model: str | None, key: str | None, max_size: float | None) -> None:
    """Check the hash of every file of MODEL, of all models, or of an exported archive without importing it."""
    from hone import store

    if model and model.endswith((".tar.gz", ".tgz")):
        _verify_archive(Path(model), key, max_size)
        return
    keys = policy_of(key).keys
    found = [store.resolve(model)] if model else store.entries()
    broken = []
    for entry in found:
        problem = _broken(entry, keys)
        click.echo(f"corrupt  {entry.tag}: {problem}" if problem else f"ok       {entry.tag}")
        if problem:
            broken.append(entry.tag)
    if broken:
        raise StoreError(f"{len(broken)} of {len(found)} corrupt: {', '.join(broken)}")


def _broken(entry: Entry, keys: Keys) -> str:
    """Return what is wrong with an entry's files or signature, or an empty string."""
    from hone.store.signing import standing

    try:
        entry.opened()
    except HoneError as error:
        return str(error)
    worth = standing(entry.path, entry.name, entry.version, keys)
    wrong = worth.state == "broken" or (keys and worth.state != "signed")
    return worth.describe() if wrong else ""


def _verify_archive(file: Path, key: str | None, max_size: float | None) -> None:
    """Say whether an archive is whole, how large it is, who signed it and what it would run."""
    from hone import runtimes
    from hone.store import archive
    from hone.store.trust import Admission, Policy

    contents = archive.verify_archive(file, _bytes(max_size))
    artifact = archive.preview(contents, file)
    code = runtimes.code_in(artifact)
    keys = policy_of(key).keys
    worth = Admission(Policy(keys=keys), file).standing(contents)
    click.echo(f"{contents.name}:{contents.version}\n  digest    {contents.manifest.digest}")
    click.echo(f"  runtime   {contents.manifest.runtime}, {contents.manifest.precision}")
    click.echo(f"  size      {contents.manifest.size_bytes:,} bytes in {len(contents.manifest.files)} files, all whole")
    click.echo(f"  signature {worth.describe()}\n  code      {f'it {code}' if code else 'none: graph and weights'}")
    if worth.state == "broken" or (keys and worth.state != "signed"):
        raise StoreError(f"{file}: {worth.describe()}")


def _bytes(gigabytes: float | None) -> int | None:
    return None if gigabytes is None else int(gigabytes * 1e9)


COMMANDS = (sign_command, export_command, import_command, verify_command)
