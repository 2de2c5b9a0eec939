"""Pictures as frames: one file, or a folder of numbered files that is read like a video."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from PIL import ExifTags, Image, ImageOps

from hrvgan.errors import VideoError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
MIN_DECODED = 0.95  # Healthy xvid files are 2 frames short of their header; a truncated one lacks far more.
PICTURES_FPS = 25.0  # nominal: neither strips nor folders of frames have a timing


@contextlib.contextmanager
def open_picture(path: str | Path) -> Iterator[Image.Image]:
    """Open an image upright. Raises VideoError if it is none."""
    try:
        with Image.open(path) as image:
            if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                image = ImageOps.exif_transpose(image)
            yield image
    except VideoError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"{path}: cannot be read as an image ({error}); remove or replace it") from error


def to_rgb(image: Image.Image) -> np.ndarray:
    """Pixels, uint8 (H, W, 3); alpha is dropped."""
    if image.mode.startswith("I"):  # Pillow would clip 16-bit grey at 255 instead of scaling it.
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    return np.asarray(image.convert("RGB"))


def frame_paths(folder: str | Path) -> list[Path]:
    """Pictures of a folder in the order of the numbers in their names."""
    files = (path for path in Path(folder).iterdir() if not path.name.startswith("."))
    return sorted((path for path in files if path.suffix.lower() in PICTURE_SUFFIXES), key=_number_key)


def _number_key(path: Path) -> list:
    return [int(part) if n % 2 else part for n, part in enumerate(re.split("([0-9]+)", path.stem))]


def numbering_gaps(folder: str | Path) -> str:
    """Message if numbers are missing between the frames of a folder, "" otherwise; frames may count in steps."""
    paths = frame_paths(folder)
    numbers = [re.findall("[0-9]+", path.stem)[-1:] for path in paths]
    if len(paths) < 2 or not all(numbers):
        return ""
    steps = np.diff([int(number) for (number,) in numbers])
    step = steps.min()
    if step < 1 or not (gaps := np.flatnonzero(steps > step)).size:
        return ""
    missing = int((steps // step - 1).sum())
    return f"{missing} frames are missing in its numbers, the first after {paths[gaps[0]].name}"


def are_frames(paths: list[Path]) -> bool:
    """True if pictures are frames of one video, and not strips, which divide into two or more squares."""
    sizes = []
    for path in paths:
        with contextlib.suppress(VideoError), open_picture(path) as image:
            sizes.append(image.size)
    return bool(sizes) and all(max(size) % min(size) or max(size) == min(size) for size in sizes)


def check_count(path: str | Path, num_decoded: int, num_declared: int) -> None:
    """Raise VideoError if too few frames decode; `num_declared` is 0 if it is unknown."""
    if num_decoded == 0 or num_decoded < MIN_DECODED * num_declared:
        counts = f"{num_decoded} of {num_declared or 'its'} frames decode"
        raise VideoError(f"{path}: {counts}; cut or damaged, replace it")


class PictureReader:
    """Frames of a folder of pictures, with the face of the reader of a video's packets."""

    rate, tick, aspect = PICTURES_FPS, None, None

    def __init__(self, path: str | Path):
        self.path = path
        try:
            self.paths = frame_paths(path)
        except OSError as error:
            raise VideoError(f"{path}: cannot be read ({error.strerror}); remove or replace it") from error
        self.num_declared = len(self.paths)

    def count(self) -> int:
        return self.num_declared

    def frames(self) -> Iterator[av.VideoFrame]:
        for path in self.paths:
            # `check_complete` counts those that cannot be read.
            with contextlib.suppress(VideoError), open_picture(path) as image:
                yield av.VideoFrame.from_ndarray(to_rgb(image), "rgb24")

    def check_complete(self, num_decoded: int) -> int:
        check_count(self.path, num_decoded, self.num_declared)
        return self.num_declared

    def size(self) -> tuple[int, int]:
        """Width and height of the first frame. Raises VideoError."""
        if not self.paths:
            raise VideoError(f"{self.path}: no frames in it; remove or replace it")
        with open_picture(self.paths[0]) as image:
            return image.size
