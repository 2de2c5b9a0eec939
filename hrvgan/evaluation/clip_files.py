"""Decoding of the frames of a video that are scored. Without torch, so that its processes are small and start fast."""

import contextlib
import ctypes
import functools
import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hrvgan.errors import VideoError
from hrvgan.evaluation.frame_range import FrameRange, Undefined
from hrvgan.video.decode import Render, decode, expected_frames
from hrvgan.video.io import is_strip, read_frames

M_MMAP_THRESHOLD = -3  # of glibc's malloc.h: bytes from which on a block is the system's
Shrink = Callable[[np.ndarray], np.ndarray]  # uint8 (H, W, 3) -> float (3, 1, h, w)


def try_decode(job: tuple[Path, int], frames: FrameRange, shrink: Shrink | None) -> np.ndarray | str:
    """The clip that `decode_clip` returns, or the cause why there is none."""
    try:
        return decode_clip(job, frames, shrink)
    except (Undefined, VideoError) as error:
        return str(error)


def decode_clip(job: tuple[Path, int], frames: FrameRange, shrink: Shrink | None = None) -> np.ndarray:
    """The `frames` of clip number `row` in file `path`, uint8 (T, H, W, 3); or with `shrink`, which sees one at a time,
    float (3, T, h, w), except of strips."""
    path, row = job
    if shrink:
        _give_back_freed_memory()
        gc.collect()  # A filter graph of PyAV is a reference cycle: that of the clip before holds 6 MB at 1080p.
    if is_strip(path) or not frames.frames:
        return np.ascontiguousarray(frames(read_frames(path)[0], row, str(path)))
    keep = shrink or (lambda picture: picture[None])
    pictures, length = _decode_range(path, keep, *frames.place(expected_frames(path), row, str(path)))
    if len(pictures) < frames.frames:  # The header promises more frames than there are.
        pictures, _ = _decode_range(path, keep, *frames.place(length, row, str(path)))
    if len({picture.shape for picture in pictures}) > 1:
        raise VideoError(f"{path}: its frames change their size; encode it again")
    return np.concatenate(pictures, axis=1 if shrink else 0)


@functools.cache
def _give_back_freed_memory() -> None:
    """glibc would keep the blocks of one large frame for the next, and find them in pieces: twice the memory."""
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 2**20)


class _Enough(Exception):
    """Ends decoding after the last frame needed."""


def _decode_range(path: Path, keep: Shrink, start: int, stop: int) -> tuple[list[np.ndarray], int]:
    """Frames `start` to `stop` of a video, and the number of frames decoded."""
    frames = []

    def put(number: int, render: Render) -> None:
        frames.append(keep(render(None, True)))
        if number + 1 == stop:
            raise _Enough

    with contextlib.suppress(_Enough):
        return frames, decode(path, range(start, stop).__contains__, put).num_frames
    return frames, stop
