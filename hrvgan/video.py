"""Video files in, video files out: uint8 RGB frames (T, H, W, 3) here, what ffmpeg and Pillow know there.

PyAV decodes (the binary's `-ss` and `fps_mode` lose or double frames of real files), Pillow decodes strips of
frames, and ffmpeg-python drives every encoder through the binary that imageio-ffmpeg carries.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import ffmpeg
import imageio_ffmpeg
import numpy as np
from PIL import Image

from hrvgan.errors import InputError
from hrvgan.files import atomic_path

VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".webm", ".mov")
STRIP_SUFFIXES = (".png", ".jpg", ".jpeg")
STRIP_FPS = 25.0  # A strip says nothing about time.
LEAST_DECODED = 0.95  # Healthy xvid files are 2 frames short of their header; a cut one is short by far more.

# Bicubic with its exact paths: the same bytes whatever SIMD the CPU has.
SCALE_FLAGS = "bicubic+accurate_rnd+full_chroma_int+bitexact"


class VideoError(InputError):
    """A video that cannot be used; the message names the file and the cause."""


class FrameCountWarning(UserWarning):
    """The decoder found a few frames more or fewer than the container promised."""


class Probe(NamedTuple):
    width: int
    height: int
    fps: float
    num_frames: int  # as the container says; 0 where it does not


def probe(path: str | Path) -> Probe:
    """Size, rate and length of a video or strip without decoding it. Raises VideoError."""
    if Path(path).suffix.lower() in STRIP_SUFFIXES:
        with _strip(path) as image:
            side = min(image.size)
            return Probe(side, side, STRIP_FPS, max(image.size) // side)
    with _stream(path) as (_, stream):
        return Probe(stream.width, stream.height, _fps(stream), stream.frames)


def read_frames(path: str | Path, size: int | None = None, crop: bool = True) -> tuple[np.ndarray, float]:
    """All frames of `path`, uint8 (T, H, W, 3), and their rate in frames a second.

    With `size` frames become squares of that many pixels: the picture covers the square and is cropped in the
    middle, or with `crop=False` is squashed into it. Warns FrameCountWarning when the count is not the
    container's. Raises VideoError if the file is missing, is no video, or gives fewer than 95 % of the frames
    that its container promises.
    """
    if Path(path).suffix.lower() in STRIP_SUFFIXES:
        with _strip(path) as image:  # No need to crop: its frames are squares.
            return _strip_frames(image, size), STRIP_FPS
    with _stream(path) as (container, stream):
        frames = list(_decode(container, stream, filters(size, crop)))
        _check_count(path, len(frames), stream.frames)
        return np.stack(frames), _fps(stream)


def filters(size: int | None, crop: bool) -> list[tuple[str, str]]:
    """(name, arguments) of the ffmpeg filters between the decoder and the array."""
    if size is None:
        return [("format", "rgb24")]
    cover = ":force_original_aspect_ratio=increase" if crop else ""
    scale = ("scale", f"{size}:{size}{cover}:flags={SCALE_FLAGS}")
    # Crop after the conversion: in yuv420p it could only move by whole pairs of pixels.
    return [scale, ("format", "rgb24"), ("crop", f"{size}:{size}")]


@contextlib.contextmanager
def _stream(path: str | Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError(f"{path}: no video stream in it; remove the file or replace it")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # Parallel over videos is faster than inside one.
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        cause = error.strerror or error
        raise VideoError(f"{path}: cannot be decoded ({cause}); remove or replace it") from error


def _fps(stream: av.VideoStream) -> float:
    return float(stream.average_rate or stream.guessed_rate or STRIP_FPS)


def _decode(container, stream, chain: Sequence[tuple[str, str]]) -> Iterator[np.ndarray]:
    graph = av.filter.Graph()
    nodes = [graph.add(name, arguments) for name, arguments in chain]
    graph.link_nodes(graph.add_buffer(template=stream), *nodes, graph.add("buffersink")).configure()
    for packet in container.demux(stream):
        try:
            decoded = packet.decode()
        except av.InvalidDataError:
            continue  # A damaged packet costs its own frames; the count says whether too many are gone.
        for frame in decoded:
            graph.push(frame)
            yield graph.pull().to_ndarray()


def _check_count(path: str | Path, found: int, promised: int) -> None:
    if found == 0 or found < LEAST_DECODED * promised:
        raise VideoError(f"{path}: {found} of {promised or 'its'} frames decode; cut or damaged, replace it")
    if promised and found != promised:
        message = f"{path}: {found} frames decoded, {promised} in its header"
        warnings.warn(message, FrameCountWarning, stacklevel=3)


@contextlib.contextmanager
def _strip(path: str | Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            width, height = image.size
            if max(width, height) % min(width, height):
                raise VideoError(f"{path}: {width}x{height} px do not divide into square frames; crop it")
            yield image
    except (OSError, Image.DecompressionBombError) as error:
        raise VideoError(f"{path}: cannot be read as an image ({error}); remove or replace it") from error


def _strip_frames(image: Image.Image, size: int | None) -> np.ndarray:
    side, pixels = min(image.size), np.asarray(image.convert("RGB"))
    if image.width > image.height:
        pixels = pixels.reshape(side, -1, side, 3).swapaxes(0, 1)
    frames = pixels.reshape(-1, side, side, 3)
    if size in (None, side):
        return np.ascontiguousarray(frames)
    resize = (Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC) for frame in frames)
    return np.stack([np.asarray(frame) for frame in resize])


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
