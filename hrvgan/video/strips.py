"""Strips of square frames in one image, side by side or stacked: what some data sets hold in place of videos."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from hrvgan.errors import VideoError

STRIP_SUFFIXES = (".png", ".jpg", ".jpeg")
STRIP_FPS = 25.0  # A strip says nothing about time.


def is_strip(path: str | Path) -> bool:
    return Path(path).suffix.lower() in STRIP_SUFFIXES


@contextlib.contextmanager
def open_strip(path: str | Path) -> Iterator[Image.Image]:
    """The image, upright; raises VideoError if it is none, or does not divide into squares."""
    try:
        with Image.open(path) as image:
            if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                image = ImageOps.exif_transpose(image)
            width, height = image.size
            if max(width, height) % min(width, height):
                raise VideoError(f"{path}: {width}x{height} px do not divide into square frames; crop it")
            yield image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(f"{path}: cannot be read as an image ({error}); remove or replace it") from error


def strip_frames(image: Image.Image, size: int | None) -> np.ndarray:
    """Its frames, uint8 (T, H, W, 3), `size` pixels wide and high; alpha is dropped."""
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would not scale but cut off at 255
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    side, pixels = min(image.size), np.asarray(image.convert("RGB"))
    if image.width > image.height:
        pixels = pixels.reshape(side, -1, side, 3).swapaxes(0, 1)
    frames = pixels.reshape(-1, side, side, 3)
    if size in (None, side):
        return np.ascontiguousarray(frames)
    resize = (Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC) for frame in frames)
    return np.stack([np.asarray(frame) for frame in resize])
