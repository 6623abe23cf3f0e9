"""Build a container image of stored models: `hone containerize`."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hone import __version__
from hone.errors import HoneError
from hone.processes import output_of

from .build_context import write_context
from .engines import build_command, find_engine, image_facts, push
from .image_record import ImageRecord, LeftOut, PackedModel
from .packing import KINDS, Packing, Request, pack
from .registry.keys import fingerprint
from .registry.signatures import sign

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

TAG = re.compile(r"^[a-z0-9]+([._/:-][A-Za-z0-9._-]+)*$")


def containerize(
    request: Request,
    progress: Callable[[str], None],
    context: Path | None = None,
    key: EllipticCurvePrivateKey | None = None,
) -> ImageRecord:
    """Build an image, and push it where that was asked for.

    Args:
        request: what to build.
        progress: told what happens.
        context: write the build context here and stop, for a build elsewhere; the record then names no built image.
        key: to sign what was pushed with.

    Raises:
        StoreError: no such model.
        UnavailableError: no container engine is installed.
        HoneError: such an image can't hold the best of the variants, a file is missing, or the engine failed; the
            message is its last line.
    """
    _check(request, context)
    if key is not None and not request.push:
        raise HoneError("--sign-key: a signature lies beside the image in its registry; give --push, too")
    engine = "" if context else find_engine(request.engine)
    packing = pack(request)
    first = packing.entries[0]
    tag = request.tag or f"localhost/hone/{first.name}:{first.version}-{request.kind}"
    record = _record(tag, request, packing)
    for model in record.left_out:
        progress(f"left out {model.tag}: it needs {model.needs}, which an image of kind {request.kind} hasn't got")
    with tempfile.TemporaryDirectory(prefix="hone-image-") as scratch:
        folder = context or Path(scratch) / "context"
        progress(f"packing {', '.join(entry.tag for entry in packing.entries)}; it serves {', '.join(packing.served)}")
        facts = write_context(folder, request, packing)
        if context:
            command = build_command("buildah", tag, request, facts, context)
            progress(f"wrote {context}; build it with: {shlex.join(command)}")
            return record
        progress(f"building {tag} with {engine}")
        output_of([*build_command(engine, tag, request, facts, folder)], engine)
    identity, size, above = image_facts(engine, tag, record.base)
    record = record.model_copy(update={"id": identity, "size_mb": size, "above_base_mb": above})
    return _pushed(record, engine, progress, key) if request.push else record


def _pushed(
    record: ImageRecord, engine: str, progress: Callable[[str], None], key: EllipticCurvePrivateKey | None
) -> ImageRecord:
    """Push an image, and sign it where there is a key; return its record with what that gave."""
    progress(f"pushing {record.image}")
    record = record.model_copy(update={"digest": push(engine, record.image)})
    if key is None:
        return record
    progress(f"signed in {sign(record.image, record.digest, key)}")
    return record.model_copy(update={"signed_by": fingerprint(key.public_key())})


def _check(request: Request, context: Path | None) -> None:
    if request.tag and not TAG.match(request.tag):
        raise HoneError(
            f"--tag: '{request.tag}' is no image name; write one such as registry.example.com/hone/digits:1"
        )
    if request.push and context:
        raise HoneError("--push: with --context nothing is built here that could be pushed")
    if request.push and not _registry(request.tag):
        raise HoneError(
            f"--push: '{request.tag}' names no registry; give --tag one such as registry.example.com/hone/digits:1"
        )


def _registry(tag: str) -> str:
    """Return the host that a tag names; `localhost` alone is how engines call what was never pushed."""
    host = tag.partition("/")[0] if "/" in tag else ""
    return host if "." in host or ":" in host else ""


def _record(tag: str, request: Request, packing: Packing) -> ImageRecord:
    return ImageRecord(
        image=tag,
        kind_of_image=request.kind,
        base=request.base or KINDS[request.kind].base,
        hone=__version__,
        serves=packing.entries[0].tag,
        models=[PackedModel(tag=entry.tag, digest=entry.opened(verify=False).digest) for entry in packing.entries],
        left_out=[LeftOut(tag=tag, needs=needs) for tag, needs in packing.left_out],
    )
