"""What an image holds, as `hone containerize` writes it (`image.json`) and `hone k8s render` reads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field

from hone.errors import HoneError
from hone.records import Record, read_record

IMAGE = re.compile(
    r"^(?P<name>[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)*)(?P<tag>:[A-Za-z0-9._-]+)?(?P<digest>@sha256:[0-9a-f]{64})?$"
)
"""An image's name, and its tag, its digest, or both."""


class PackedModel(Record):
    """A stored artifact in an image."""

    tag: str
    digest: str = Field(description="sha256 of what it computes, as in the service's metadata of the model.")


class LeftOut(Record):
    """A stored artifact that a service would choose from, but such an image can't run."""

    tag: str
    needs: str


class ImageRecord(Record):
    """`image.json`."""

    schema_version: Literal[1] = 1
    kind: Literal["image"] = "image"
    image: str = Field(description="Its name and tag.")
    id: str = Field("", description="Under which the engine has it; empty where only the context was written.")
    digest: str = Field("", description="Under which the registry has it; empty until it was pushed.")
    signed_by: str = Field("", description="sha256 of the public key whose private one signed it; empty: none did.")
    kind_of_image: str = Field(description="cpu, openvino, litert, cuda or tensorrt.")
    base: str
    hone: str = Field(description="Version.")
    size_mb: float = 0.0
    above_base_mb: float = 0.0
    serves: str = Field(description="The tag that answers /predict on a host that can run it.")
    models: list[PackedModel]
    left_out: list[LeftOut] = Field(default_factory=list)

    @property
    def reference(self) -> str:
        """How a cluster pulls it: by digest where it was pushed."""
        return f"{self.image}@{self.digest}" if self.digest else self.image

    def is_also(self, reference: str) -> bool:
        """Return whether another reference means this image: the same digest, or where one has none the same name."""
        name, _, digest = reference.partition("@")
        return digest == self.digest if digest and self.digest else name == self.image

    def summary(self) -> str:
        """Return a line for the terminal."""
        line = f"{self.image}: {self.size_mb:,.0f} MB, {self.above_base_mb:,.0f} MB above its base ({self.id[:19]})"
        line += f"\npushed: {self.reference}" if self.digest else ""
        return line + (f"\nsigned: with key {self.signed_by[:16]}" if self.signed_by else "")


def read_image_record(file: Path) -> ImageRecord:
    """Read an `image.json`.

    Raises:
        HoneError: it is missing, or not one.
    """
    return read_record(file, ImageRecord, "a record of an image", "hone containerize MODEL")


def measured_image(file: Path, tag: str, digest: str | None) -> str:
    """Return the image that a running service is from.

    Args:
        file: the image's record.
        tag, digest: of what answers, as the service says.

    Raises:
        HoneError: the image holds something else.
    """
    record = read_image_record(file)
    packed = next((model.digest for model in record.models if model.tag == tag), "nothing")
    if packed != digest:
        raise HoneError(
            f"{file}: what answers is {tag}, {(digest or 'unknown')[:12]}; in the image that is {packed[:12]}; give "
            "the address of a service of this image"
        )
    return record.reference


def image_to_deploy(
    image: str, file: Path | None, measured: str, digest: str, capacity: Path, ran: str | None = None
) -> tuple[str, tuple[str, ...]]:
    """Return the image that manifests name, and what has to be said beside their numbers.

    Args:
        image: as given; empty: the record's.
        file: the image's record; None: nothing is checked, which is said.
        measured: the tag that the capacity is of.
        digest: of that artifact.
        capacity: the file it came from, for messages.
        ran: the image that was measured; None: none was, or it isn't known.

    Raises:
        HoneError: the record is of another image, or the image serves something else than what was measured.
    """
    if file is None:
        if not image:
            raise HoneError("give --image, or --image-record with the image.json of hone containerize")
        return image, (f"Unchecked: whether {image} serves {measured}. Give its image.json: --image-record",)
    record = read_image_record(file)
    if image and image != record.image and not (record.digest and image.endswith(f"@{record.digest}")):
        raise HoneError(f"{file}: is of {record.reference}, not of {image}; leave --image out to deploy that")
    if record.serves != measured:
        raise HoneError(
            f"{file}: the image serves {record.serves}, {capacity} was measured for {measured}; "
            f"measure what is served: hone bench capacity {record.serves} …"
        )
    packed = next((model.digest for model in record.models if model.tag == measured), "")
    if packed != digest:
        raise HoneError(
            f"{file}: {measured} in the image is {packed[:12]}, what was measured is {digest[:12]}; "
            "build the image again from this store, or measure there"
        )
    if ran and not record.is_also(ran):
        raise HoneError(f"{capacity}: was measured on {ran}, {file} is of {record.reference}; measure that image")
    others = [model.tag for model in record.models if model.tag.partition(":")[0] != measured.partition(":")[0]]
    remarks = [f"The image serves {record.serves}, {packed[:12]}: what was measured (by {file.name})."]
    if others:
        remarks.append(f"It holds {', '.join(others)} too; the numbers have no room for their load.")
    return image or record.reference, tuple(remarks)


def parsed_image(image: str) -> re.Match[str]:
    """Return the parts of an image's name; raise HoneError unless it names one version."""
    match = IMAGE.match(image)
    if match is None or not (match["tag"] or match["digest"]):
        raise HoneError(f"--image: '{image}' names no version; write registry/name:tag or registry/name@sha256:…")
    if match["tag"] == ":latest" and not match["digest"]:
        raise HoneError(
            f"--image: '{image}' moves: pods that start at other times would run other images; give a tag that is "
            "never moved, or registry/name@sha256:… (hone containerize --push prints it)"
        )
    return match
