"""Video files in, video files out: uint8 RGB frames (T, H, W, 3) here, what ffmpeg and Pillow know there.

`decoding.py` and `strips.py` read; ffmpeg-python drives every encoder through the binary that imageio-ffmpeg carries.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import ffmpeg
import imageio_ffmpeg
import numpy as np

from hrvgan.errors import VideoError
from hrvgan.files import atomic_path
from hrvgan.video.decode import decode, open_video, rate_of
from hrvgan.video.strips import STRIP_FPS, is_strip, open_strip, strip_frames

VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".webm", ".mov")


class FrameCountWarning(UserWarning):
    """The decoder found a few frames more or fewer than the container promised."""


class Probe(NamedTuple):
    width: int
    height: int
    fps: float
    num_frames: int  # as the container says; 0 where it does not


def probe(path: str | Path) -> Probe:
    """Size, rate and length of a video or strip without decoding it. Raises VideoError."""
    if is_strip(path):
        with open_strip(path) as image:
            side = min(image.size)
            return Probe(side, side, STRIP_FPS, max(image.size) // side)
    with open_video(path) as (_, stream):
        return Probe(stream.width, stream.height, rate_of(stream), stream.frames)


def read_frames(path: str | Path, size: int | None = None, crop: bool = True) -> tuple[np.ndarray, float]:
    """All frames of `path`, uint8 (T, H, W, 3), and their rate in frames a second.

    With `size` frames become squares of that many pixels: the picture covers the square and is cropped in the
    middle, or with `crop=False` is squashed into it. Turned upright; alpha is dropped. Warns FrameCountWarning
    when the count is not the container's. Raises VideoError if the file is missing, is no video, gives fewer
    than 95 % of the frames that its container promises, or changes its size (where no `size` is asked for).
    """
    if is_strip(path):
        with open_strip(path) as image:  # No need to crop: its frames are squares.
            return strip_frames(image, size), STRIP_FPS
    frames = []
    facts = decode(path, lambda n: True, lambda n, picture: frames.append(picture(size, crop)))
    if facts.promised not in (0, facts.decoded):
        warnings.warn(count_warning(path, facts.decoded, facts.promised), FrameCountWarning, stacklevel=2)
    if len({frame.shape for frame in frames}) > 1:
        raise VideoError(f"{path}: its frames change their size; read it with a size, or encode it again")
    return np.stack(frames), facts.fps


def count_warning(path: str | Path, decoded: int, promised: int) -> str:
    return f"{path}: {decoded} frames decoded, {promised} in its header"


def encode(
    path: str | Path, frames: np.ndarray, *, fps: float, chain: Callable | None = None, **options
) -> None:
    """Encode uint8 (T, H, W, 3) with ffmpeg: `chain` adds filters, `options` are the output's.

    The same frames and options give the same bytes: no dates, no versions, one thread. Whole file or none.
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

    yuv420p wants even sizes: odd ones get one black row or column.
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
