"""Pictures and videos as data: URIs, so that the page is one file."""

import base64
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hrvgan.clipstore.clips import Clips
from hrvgan.video.io import read_frames, write_video

TYPES = {".mp4": "video/mp4", ".png": "image/png", ".jpg": "image/jpeg"}


@dataclass(frozen=True)
class Media:
    """A picture, or a video with its first frame as poster; `width` and `height` in pixels."""

    uri: str
    width: int
    height: int
    frames: int = 1
    poster: str = ""

    @property
    def share(self) -> float:
        """Width in heights: two media that share a line by it come out equally high."""
        return round(self.width / self.height, 3)


@dataclass(frozen=True)
class Screen:
    """A clip of a class with the words below it; `kind` is "generated" or "real"."""

    kind: str
    words: str
    media: Media


def embed_picture(path: Path) -> Media:
    with Image.open(path) as image:
        return Media(_uri(path.read_bytes(), ".png"), *image.size)


def embed_video(path: Path) -> Media:
    frames = read_frames(path)[0]  # (T, H, W, 3)
    poster = io.BytesIO()
    Image.fromarray(frames[0]).save(poster, "JPEG", quality=90, subsampling=0)
    num, height, width, _ = frames.shape
    return Media(_uri(path.read_bytes(), ".mp4"), width, height, num, _uri(poster.getvalue(), ".jpg"))


def _uri(content: bytes, suffix: str) -> str:
    return f"data:{TYPES[suffix]};base64,{base64.b64encode(content).decode()}"


def real_screens(clips: Clips, class_name: str, count: int, like: Media) -> list[Screen]:
    """The first `count` real clips of the class, as long and large as `like`, that were kept from the model.

    From the test split; a data set without one shows val, and one without either its training clips.
    """
    if class_name and class_name not in clips.classes:
        return []  # The data set has changed since the model was trained.
    for split in ("test", "val", "train"):
        view = clips.split(split)
        members = np.arange(len(view))
        if class_name and len(view):
            members = members[view.labels == clips.classes.index(class_name)]
        if len(members):
            shown = [view[int(row)] for row in members[:count]]
            return [
                Screen("real", f"real, {split}", _embed_real(frames, clips.fps, like)) for frames in shown
            ]
    return []


def _embed_real(frames: np.ndarray, fps: float, like: Media) -> Media:
    """Frames enlarged as the generated ones are: the codec halves the resolution of colour in both."""
    factor = max(1, like.width // frames.shape[2])
    enlarged = frames[: like.frames].repeat(factor, axis=1).repeat(factor, axis=2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "real.mp4")
        write_video(path, enlarged, fps=fps)
        return embed_video(path)
