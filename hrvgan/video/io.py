"""Read and write video files and strips of frames: uint8 RGB (T, H, W, 3).

A strip is one image of square frames, side by side or stacked, as some data sets hold in place of videos.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import ffmpeg
import imageio_ffmpeg
import numpy as np
from PIL import Image

from hrvgan.errors import VideoError
from hrvgan.files import atomic_path
from hrvgan.video.decode import decode
from hrvgan.video.readers import PICTURE_SUFFIXES, PICTURES_FPS, WEBP, open_picture, open_reader, to_rgb

VIDEO_SUFFIXES = (
    ".avi", ".mp4", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts", ".m2ts", ".flv", ".3gp", ".ogv",
    ".gif", WEBP,
)  # fmt: skip


class FrameCountWarning(UserWarning):
    """The number of decoded frames differs slightly from the one that the container declares."""


class Probe(NamedTuple):
    width: int
    height: int
    fps: float
    num_frames: int  # as the container declares; 0 if it does not


def probe(path: str | Path) -> Probe:
    """Size, rate and length of a video or strip without decoding it. Raises VideoError."""
    if is_strip(path):
        with _open_strip(path) as image:
            side = min(image.size)
            return Probe(side, side, PICTURES_FPS, max(image.size) // side)
    with open_reader(path) as reader:
        return Probe(*reader.size(), reader.rate, reader.num_declared)


def read_frames(path: str | Path, size: int | None = None, crop: bool = True) -> tuple[np.ndarray, float]:
    """All frames of `path`, uint8 (T, H, W, 3), and their rate in frames per second.

    With `size`, frames become squares of that many pixels: the frame is scaled to cover the square and center-cropped,
    or with `crop=False` squashed. Rotation metadata is applied; alpha is dropped. Warns FrameCountWarning if the count
    differs from the container's. Raises VideoError if the file is missing, is no video, yields fewer than 95 % of the
    frames that its container declares, or changes its size (without `size`).
    """
    if is_strip(path):
        return read_strip(path, size), PICTURES_FPS
    frames = []
    result = decode(path, lambda n: True, lambda n, render: frames.append(render(size, crop)))
    if result.mismatch:
        warnings.warn(f"{path}: {result.mismatch}", FrameCountWarning, stacklevel=2)
    if len({frame.shape for frame in frames}) > 1:
        raise VideoError(f"{path}: its frames change their size; read it with a size, or encode it again")
    return np.stack(frames), result.fps


def is_strip(path: str | Path) -> bool:
    return Path(path).suffix.lower() in PICTURE_SUFFIXES and not Path(path).is_dir()


@contextlib.contextmanager
def _open_strip(path: str | Path) -> Iterator[Image.Image]:
    """Open an image upright. Raises VideoError if it is none, or does not divide into squares."""
    with open_picture(path) as image:
        width, height = image.size
        if max(width, height) % min(width, height):
            raise VideoError(f"{path}: {width}x{height} px do not divide into square frames; crop it")
        yield image


def read_strip(path: str | Path, size: int | None) -> np.ndarray:
    """Frames of a strip, uint8 (T, size, size, 3), or unscaled if size is None; alpha is dropped."""
    with _open_strip(path) as image:
        side, pixels = min(image.size), to_rgb(image)
        if image.width > image.height:
            pixels = pixels.reshape(side, -1, side, 3).swapaxes(0, 1)
    frames = pixels.reshape(-1, side, side, 3)
    if size in (None, side):
        return np.ascontiguousarray(frames)
    resize = (Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC) for frame in frames)
    return np.stack([np.asarray(frame) for frame in resize])


def encode(path: str | Path, frames: np.ndarray, *, fps: float, chain: Callable | None = None, **options) -> None:
    """Encode uint8 (T, H, W, 3) with ffmpeg: `chain` adds filters, `options` are the output's.

    Output bytes are deterministic: no dates, no versions, one thread. The file is written whole or not at all.
    """
    height, width = frames.shape[1:3]
    raw = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", framerate=fps)
    options |= {"fflags": "+bitexact", "flags:v": "+bitexact", "map_metadata": -1, "threads": 1}
    with atomic_path(path) as temporary:
        job = (chain(raw) if chain else raw).output(str(temporary), **options)
        try:
            program = imageio_ffmpeg.get_ffmpeg_exe()
            job.run(program, input=frames.tobytes(), quiet=True, overwrite_output=True)
        except ffmpeg.Error as error:
            cause = error.stderr.decode(errors="replace").strip().splitlines()[-1]
            raise VideoError(f"{path}: cannot be encoded ({cause})") from error


def write_video(path: str | Path, frames: np.ndarray, *, fps: float, crf: int = 16) -> None:
    """Write uint8 (T, H, W, 3) as H.264 that plays in a browser, or as a gif if `path` ends in .gif.

    yuv420p requires even sizes: odd ones are padded with a black row or column.
    """
    if Path(path).suffix.lower() == ".gif":
        return encode(path, frames, fps=fps, chain=_with_palette)
    bt709 = {f"color{name}": "bt709" for name in ("space", "_primaries", "_trc")}
    encode(path, frames, fps=fps, chain=_even_bt709, vcodec="libx264", pix_fmt="yuv420p", crf=crf,
           movflags="+faststart", **bt709)  # fmt: skip


def _even_bt709(stream):
    return stream.filter("pad", "ceil(iw/2)*2", "ceil(ih/2)*2").filter("scale", out_color_matrix="bt709")


def _with_palette(stream):
    split = stream.split()
    return ffmpeg.filter([split[0], split[1].filter("palettegen")], "paletteuse")
