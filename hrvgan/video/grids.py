"""Many clips in one picture or video: uint8 in, uint8 out."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hrvgan.files import atomic_path


def write_image(path: str | Path, picture: np.ndarray) -> None:
    """Write uint8 (H, W, 3) as an image; the suffix says which kind."""
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary)


def tile(clips: np.ndarray, columns: int, *, gap: int = 2, enlarge: int = 1) -> np.ndarray:
    """uint8 clips (N, T, H, W, 3) -> a grid, row by row, (T, H', W', 3); each pixel `enlarge` pixels wide."""
    clips = clips.repeat(enlarge, axis=2).repeat(enlarge, axis=3)
    num, time, height, width, _ = clips.shape
    rows = math.ceil(num / columns)
    cells = np.zeros((rows * columns, time, height + gap, width + gap, 3), np.uint8)
    cells[:num, :, :height, :width] = clips
    grid = cells.reshape(rows, columns, *cells.shape[1:]).transpose(2, 0, 3, 1, 4, 5)
    return np.ascontiguousarray(grid.reshape(time, rows * (height + gap), columns * (width + gap), 3))


def filmstrips(clips: np.ndarray, **options) -> np.ndarray:
    """uint8 clips (N, T, H, W, 3) -> a picture (H', W', 3): a row a clip, in time from left to right."""
    return tile(clips.reshape(-1, 1, *clips.shape[2:]), clips.shape[1], **options)[0]


def labelled_rows(picture: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Write `labels` left of as many equal rows of `picture`, uint8 (H, W, 3) or (T, H, W, 3)."""
    height = picture.shape[-3] / len(labels)
    font = ImageFont.load_default(size=min(16.0, max(8.0, 0.4 * height)))
    margin = math.ceil(max(font.getlength(label) for label in labels)) + 12
    image = Image.new("RGB", (margin, picture.shape[-3]))
    for row, label in enumerate(labels):
        middle = (6, (row + 0.5) * height)
        ImageDraw.Draw(image).text(middle, label, font=font, fill=(235, 235, 235), anchor="lm")
    column = np.broadcast_to(np.asarray(image), (*picture.shape[:-2], margin, 3))
    return np.concatenate([column, picture], axis=-2)
