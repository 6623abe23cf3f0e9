"""JPEG and PNG pictures to float tensors, by Pillow."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from hone.errors import InputError, UnavailableError, one_line
from hone.signature import BATCH
from hone.steps.base import BYTES, Columns, ColumnSpec, Run, Specs, Step, StepError, number_dtype

FORMATS = ("JPEG", "PNG")


class Image(Step):
    """JPEG or PNG files to tensors of one size."""

    package: ClassVar[str] = "PIL"

    input: str = Field("image", description="What callers name the picture.")
    output: str = Field(description="The model's input.")
    size: tuple[int, int] = Field(description="Height and width that the model takes, pixels.")
    mode: Literal["rgb", "grayscale"] = "rgb"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    resize: Literal["stretch", "crop", "pad"] = Field(
        "stretch",
        description="To the size whatever the shape; the shorter side to it, and the middle cut out; or the longer "
        "side, and black around.",
    )
    filter: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    scale: float = Field(1 / 255, gt=0, description="Pixels, 0 to 255, times this; then minus mean, over std.")
    mean: tuple[float, ...] = Field((0.0,), description="One for all channels, or one each.")
    std: tuple[float, ...] = Field((1.0,), description="One for all channels, or one each.")
    max_pixels: int = Field(25_000_000, gt=0, description="Of a picture as it comes; a larger one is not decoded.")
    max_bytes: int = Field(16_000_000, gt=0, description="Of a file.")

    @model_validator(mode="after")
    def _possible(self) -> Image:
        if min(self.size) < 1 or self.size[0] * self.size[1] > 1 << 26:
            raise ValueError(f"size {list(self.size)} is not possible; give [height, width] in pixels")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self._channels):
                raise ValueError(f"{name} has {len(values)} numbers; give 1 or {self._channels}")
        if not all(self.std):
            raise ValueError("std must not be 0")
        return self

    @property
    def _channels(self) -> int:
        return 3 if self.mode == "rgb" else 1

    @property
    def _plain(self) -> bool:
        return set(self.mean) == {0.0} and set(self.std) == {1.0}

    def takes(self, known: Specs, wanted: Specs) -> list[ColumnSpec]:
        return [ColumnSpec(name=self.input, dtype=BYTES, shape=(BATCH,))]

    def gives(self, known: Specs, wanted: Specs) -> list[ColumnSpec]:
        height, width = self.size
        shape = (self._channels, height, width) if self.layout == "NCHW" else (height, width, self._channels)
        dtype = number_dtype(wanted, self.output, "fu", "float32")
        if dtype.startswith("uint") and (dtype != "uint8" or not self._plain):
            raise StepError(f"'{self.output}' is {dtype}: pixels are uint8 as they are, without mean and std")
        return [ColumnSpec(name=self.output, dtype=dtype, shape=(BATCH, *shape))]

    def bind(self, folder: Path, known: Specs) -> Run:
        try:
            from PIL import Image as PillowImage
            from PIL import ImageOps
        except ImportError:
            raise UnavailableError("the step 'image' needs pillow", "pip install 'hone[steps]'") from None
        warnings.filterwarnings(
            "ignore", category=PillowImage.DecompressionBombWarning
        )  # max_pixels says what is too many
        mode = "RGB" if self.mode == "rgb" else "L"
        height, width = self.size
        resample = PillowImage.Resampling[self.filter.upper()]
        reshaped = {
            "stretch": lambda picture: picture.resize((width, height), resample),
            "crop": lambda picture: ImageOps.fit(picture, (width, height), resample),
            "pad": lambda picture: ImageOps.pad(picture, (width, height), resample),
        }[self.resize]
        dtype, whole = known[self.output].numpy_dtype, known[self.output].dtype == "uint8"
        channels_first = self.layout == "NCHW"
        shape = (self._channels, height, width) if channels_first else (height, width, self._channels)
        mean, std = (np.asarray(values, np.float32) for values in (self.mean, self.std))

        def run(columns: Columns) -> Columns:
            files = columns[self.input]
            # One picture after the other into its place: pictures are many times their files.
            found = np.empty((len(files), *shape), dtype)
            for row, content in enumerate(files):
                pixels = self._pixels(content, row, mode, reshaped).reshape(height, width, self._channels)
                if not whole:
                    pixels = (pixels.astype(np.float32) * np.float32(self.scale) - mean) / std
                found[row] = pixels.transpose(2, 0, 1) if channels_first else pixels
            return {self.output: found}

        return run

    def _pixels(self, content: Any, row: int, mode: str, reshaped: Any) -> np.ndarray:
        where = f"input '{self.input}': row {row}"
        if type(content) is not bytes:
            raise InputError(f"{where} is {type(content).__name__}, not the bytes of a picture")
        if len(content) > self.max_bytes:
            raise InputError(f"{where} has {len(content)} bytes, {self.max_bytes} are allowed")
        from PIL import Image as PillowImage

        try:
            picture = PillowImage.open(io.BytesIO(content), formats=FORMATS)  # its head: pixels are read below
            size = f"{picture.width} x {picture.height}"
            if picture.width * picture.height <= self.max_pixels:
                return np.asarray(reshaped(picture.convert(mode)))
        except PillowImage.DecompressionBombError:
            size = "far too many"
        except Exception as error:  # noqa: BLE001 - what broken files raise is of many kinds
            raise InputError(f"{where} is no {' or '.join(FORMATS)} that can be read: {one_line(error)}") from None
        raise InputError(f"{where} has {size} pixels, {self.max_pixels} are allowed")
