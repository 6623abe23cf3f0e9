"""What an image holds, as `hone containerize` writes it (`image.json`) and `hone k8s render` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from hone.errors import HoneError
from hone.files import read_record


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PackedModel(_Record):
    """A stored artifact in an image."""

    tag: str
    digest: str = Field(description="sha256 of what it computes, as in the service's metadata of the model.")


class LeftOut(_Record):
    """A stored artifact that a service would choose from, but such an image can't run."""

    tag: str
    needs: str


class ImageRecord(_Record):
    """`image.json`."""

    schema_version: Literal[1] = 1
    kind: Literal["image"] = "image"
    image: str = Field(description="Its name and tag.")
    id: str = Field("", description="Under which the engine has it; empty where only the context was written.")
    digest: str = Field("", description="Under which the registry has it; empty until it was pushed.")
    kind_of_image: str = Field(description="cpu, openvino, cuda or tensorrt.")
    base: str
    hone: str = Field(description="Version.")
    size_mb: float = 0.0
    above_base_mb: float = 0.0
    serves: str = Field(description="The tag that answers /predict on a host that can run it.")
    models: list[PackedModel]
    left_out: list[LeftOut] = []

    @property
    def reference(self) -> str:
        """How a cluster pulls it: by digest where it was pushed."""
        return f"{self.image}@{self.digest}" if self.digest else self.image

    def summary(self) -> str:
        """Return a line for the terminal."""
        line = f"{self.image}: {self.size_mb:,.0f} MB, {self.above_base_mb:,.0f} MB above its base ({self.id[:19]})"
        return f"{line}\npushed: {self.reference}" if self.digest else line


def read_image_record(file: Path) -> ImageRecord:
    """Read an `image.json`.

    Raises:
        HoneError: it is missing, or not one.
    """
    return read_record(file, ImageRecord, "no record of an image", "'hone containerize MODEL' writes one")


def image_to_deploy(
    image: str, file: Path | None, measured: str, digest: str, capacity: Path
) -> tuple[str, tuple[str, ...]]:
    """Return the image that manifests name, and what has to be said beside their numbers.

    Args:
        image: as given; empty: the record's.
        file: the image's record; None: nothing is checked, which is said.
        measured: the tag that the capacity is of.
        digest: of that artifact.
        capacity: the file it came from, for messages.

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
    others = [model.tag for model in record.models if model.tag.partition(":")[0] != measured.partition(":")[0]]
    remarks = [f"The image serves {record.serves}, {packed[:12]}: what was measured (by {file.name})."]
    if others:
        remarks.append(f"It holds {', '.join(others)} too; the numbers have no room for their load.")
    return image or record.reference, tuple(remarks)
