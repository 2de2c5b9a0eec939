"""Tile clips into one image or video, with labels: uint8 in, uint8 out."""

import contextlib
import functools
import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hrvgan.files import atomic_path, write_text

GAP = 2  # pixels between clips
BAND = 16  # pixels of the band above pictures that labels stand in
INK = (235, 235, 235)
# Asked in this order for what Pillow's own font lacks, which is all but ASCII. The first one comes with matplotlib,
# too; the others are those of Linux distributions, Windows and macOS.
FONTS = (
    "DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "NotoSansDevanagari-Regular.ttf", "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf", "msyh.ttc", "malgun.ttf", "Nirmala.ttc", "PingFang.ttc", "Arial Unicode.ttf",
    "unifont.otf",
)  # fmt: skip


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
    fonts = [font_for(label, min(16.0, max(8.0, 0.4 * height))) for label in labels]
    widths = [font.getlength(label) for font, label in zip(fonts, labels, strict=True)]
    margin = math.ceil(max(widths)) + 12
    image = Image.new("RGB", (margin, rows.shape[-3]))
    for row, (font, label) in enumerate(zip(fonts, labels, strict=True)):
        middle = (6, (row + 0.5) * height)
        ImageDraw.Draw(image).text(middle, label, font=font, fill=INK, anchor="lm")
    column = np.broadcast_to(np.asarray(image), (*rows.shape[:-2], margin, 3))
    return np.concatenate([column, rows], axis=-2)


def labelled_columns(columns: np.ndarray, labels: Sequence[str], margin: int = 0) -> np.ndarray:
    """Write `labels` above the equally wide columns of `columns`, uint8 (H, W, 3) or (T, H, W, 3); the first begins
    after `margin` pixels. A label has the room up to the next one that is not empty, and is made small enough."""
    width = columns.shape[-2]
    starts = [margin + round(number * (width - margin) / len(labels)) for number in range(len(labels))]
    shown = [(start, label) for start, label in zip(starts, labels, strict=True) if label]
    image = Image.new("RGB", (width, BAND))
    for (start, label), (end, _) in zip(shown, [*shown[1:], (width, "")], strict=True):
        part = Image.new("RGB", (end - start, BAND))  # which cuts off what is too long for the smallest font
        font = fitting_font(label, end - start)
        ImageDraw.Draw(part).text((1, BAND / 2), label, font=font, fill=INK, anchor="lm")
        image.paste(part, (start, 0))
    band = np.broadcast_to(np.asarray(image), (*columns.shape[:-3], BAND, width, 3))
    return np.concatenate([band, columns], axis=-3)


@functools.cache
def fitting_font(text: str, width: int) -> ImageFont.FreeTypeFont:
    """The largest font of 12 to 7 pixels in which `text` is not wider than `width`, or that of 7."""
    fonts = [font_for(text, size) for size in (12, 11, 10, 9, 8, 7)]
    return next((font for font in fonts if font.getlength(text) + 2 <= width), fonts[-1])


def drawable(titles: Sequence[str], classes: Sequence[str]) -> list[str]:
    """The titles as pictures show them: of a class whose name no font here can draw, "class 3", which is its label."""
    fonts = [font_for(title, 12) for title in titles]
    return [
        title if title not in classes or can_draw(font, title) else f"class {classes.index(title)}"
        for font, title in zip(fonts, titles, strict=True)
    ]


def legend(titles: Sequence[str], classes: Sequence[str]) -> list[str]:
    """The titles, those that `drawable` replaces as "class 3: title"."""
    pairs = zip(drawable(titles, classes), titles, strict=True)
    return [title if shown == title else f"{shown}: {title}" for shown, title in pairs]


def write_legend(picture: Path, titles: Sequence[str], classes: Sequence[str]) -> Path | None:
    """Write beside a picture or video, as <its name>.txt, what "class 3" in it stands for; None if there is no need."""
    path, lines = picture.with_suffix(".txt"), set(legend(titles, classes)) - set(titles)
    if not lines:
        return None
    write_text(path, "".join(f"{line}\n" for line in sorted(lines)))
    return path


@functools.cache
def font_for(text: str, size: float) -> ImageFont.FreeTypeFont:
    """The first font that can draw `text`, or Pillow's own, which draws boxes."""
    own = ImageFont.load_default(size)
    if can_draw(own, text):
        return own
    others = (ImageFont.truetype(path, size) for path in _font_files())
    return next((font for font in others if can_draw(font, text)), own)


@functools.cache
def _font_files() -> list[str]:
    """Paths of those of FONTS that there are."""
    plotting, found = importlib.util.find_spec("matplotlib"), []
    bundled = [Path(plotting.origin).parent / "mpl-data/fonts/ttf" / FONTS[0]] if plotting else []
    for name in (*bundled, *FONTS):
        with contextlib.suppress(OSError):
            found.append(ImageFont.truetype(name).path)
    return found


def can_draw(font: ImageFont.FreeTypeFont, text: str) -> bool:
    """True if no visible character of `text` is shown as the one that no font has."""
    missing = bytes(font.getmask("\uffff"))
    return all(bytes(font.getmask(letter)) != missing for letter in text if not letter.isspace())
