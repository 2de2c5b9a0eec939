"""Tile clips into one image or video, with labels: uint8 in, uint8 out."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hrvgan.files import atomic_path

GAP = 2  # pixels between clips


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write uint8 (H, W, 3) as an image file; the suffix selects the format."""
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary)


def tile(clips: np.ndarray, columns: int, *, gap: int = GAP, enlarge: int = 1) -> np.ndarray:
    """Tile uint8 clips (N, T, H, W, 3) row by row into (T, H', W', 3); `enlarge` is an integer scale factor."""
    clips = clips.repeat(enlarge, axis=2).repeat(enlarge, axis=3)
    num, time, height, width, _ = clips.shape
    rows = math.ceil(num / columns)
    cells = np.zeros((rows * columns, time, height + gap, width + gap, 3), np.uint8)
    cells[:num, :, :height, :width] = clips
    grid = cells.reshape(rows, columns, *cells.shape[1:]).transpose(2, 0, 3, 1, 4, 5)
    return np.ascontiguousarray(grid.reshape(time, rows * (height + gap), columns * (width + gap), 3))


def filmstrips(clips: np.ndarray, **options) -> np.ndarray:
    """Uint8 clips (N, T, H, W, 3) as an image (H', W', 3): a row per clip, time from left to right."""
    return tile(clips.reshape(-1, 1, *clips.shape[2:]), clips.shape[1], **options)[0]


def labelled_rows(rows: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Write `labels` to the left of the equally high rows of `rows`, uint8 (H, W, 3) or (T, H, W, 3)."""
    height = rows.shape[-3] / len(labels)
    font = ImageFont.load_default(size=min(16.0, max(8.0, 0.4 * height)))
    margin = math.ceil(max(font.getlength(label) for label in labels)) + 12
    image = Image.new("RGB", (margin, rows.shape[-3]))
    for row, label in enumerate(labels):
        middle = (6, (row + 0.5) * height)
        ImageDraw.Draw(image).text(middle, label, font=font, fill=(235, 235, 235), anchor="lm")
    column = np.broadcast_to(np.asarray(image), (*rows.shape[:-2], margin, 3))
    return np.concatenate([column, rows], axis=-2)
