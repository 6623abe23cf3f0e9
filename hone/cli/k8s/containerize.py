"""`hone containerize`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from hone.cli.auditing import audited
from hone.cli.references import pinned

KIND = click.option(
    "--kind", type=click.Choice(["cpu", "openvino", "litert", "cuda", "tensorrt"]), default="cpu", show_default=True
)


@click.command()
@click.argument("model", callback=pinned)
@click.option(
    "--and", "more", multiple=True, metavar="MODEL", callback=pinned, help="One more model or version; may be repeated."
)
@KIND
@click.option("--tag", default="", help="The image's name. [default: localhost/hone/NAME:VERSION-KIND]")
@click.option("--engine", type=click.Choice(["docker", "podman", "buildah"]), help="[default: the first installed]")
@click.option("--base", default="", help="Another base image; it needs Python 3.11 or 3.12 with venv.")
@click.option("--wheels", type=click.Path(path_type=Path), help="Install from this folder of wheels, offline.")
@click.option("--index-url", default="", help="A package mirror. [default: $PIP_INDEX_URL]")
@click.option(
    "--ca", type=click.Path(path_type=Path), help="Certificates to check the mirror's with. [default: $PIP_CERT]"
)
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="One more label; may be repeated.")
@click.option("--context", type=click.Path(path_type=Path), help="Only write the build context into this new folder.")
@click.option("--push", is_flag=True, help="Push it to the registry that --tag names.")
@click.option(
    "--sign-key",
    type=click.Path(path_type=Path),
    help="Sign what is pushed, as cosign does, with this key (PEM, P-256).",
)
@click.option("--record", type=click.Path(path_type=Path), help="What the image holds. [default: out/NAME/image.json]")
@audited("containerize", "model", unless=("context",))
def containerize(
    model: str,
    more: tuple[str, ...],
    kind: str,
    tag: str,
    engine: str | None,
    base: str,
    wheels: Path | None,
    index_url: str,
    ca: Path | None,
    labels: tuple[str, ...],
    context: Path | None,
    push: bool,
    sign_key: Path | None,
    record: Path | None,
) -> None:
    """Build a container image that serves a stored MODEL: small, not root, its root file system read-only.

    --and packs more: another model is served beside the first, another version of the same lies ready to be loaded.

    A key to sign with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out cosign.key, or the one of
    cosign generate-key-pair. Where it has a password, COSIGN_PASSWORD holds it, or it is asked for.
    """
    from hone.files import atomic_write
    from hone.k8s.tools.containerize import containerize as build
    from hone.k8s.tools.packing import Request

    pairs = [label.partition("=") for label in labels]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise click.UsageError(f"--label: '{name}' is not NAME=VALUE")
    extra = {name: value for name, _, value in pairs}
    request = Request(model, kind, tag, base, wheels, index_url, ca, engine or "", extra, more, push)
    key = None if sign_key is None else _signing_key(sign_key)
    image = build(request, lambda text: click.echo(text, err=True), context, key)
    file = record or Path("out") / model.partition(":")[0] / "image.json"
    atomic_write(file, image.model_dump_json(indent=2) + "\n")
    if image.id:
        click.echo(image.summary())
    click.echo(f"record: {file}")


def _signing_key(file: Path) -> Any:
    """Read the key before anything is built."""
    from hone.k8s.tools.registry.keys import read_signing_key

    given = os.environ.get("COSIGN_PASSWORD")
    return read_signing_key(file, lambda: given or click.prompt("password", hide_input=True, err=True))
