"""Decoded frames as arrays: upright, square, RGB, whatever size and kind of colour the camera had."""

from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import numpy as np

# Bicubic with its exact paths: the same bytes whatever SIMD the CPU has.
SCALE_FLAGS = "bicubic+accurate_rnd+full_chroma_int+bitexact"

# (size, crop) -> a frame, uint8 (H, W, 3), as of `filters`
Picture = Callable[[int | None, bool], np.ndarray]


class Chain:
    """A filter graph that is built anew when the kind of its frames changes in mid-video."""

    def __init__(self):
        self.kind = self.graph = None

    def pull(self, frame: av.VideoFrame) -> av.VideoFrame:
        # Not the frame's side data: asking for them ties it into a ring, which is freed long after.
        kind = (
            frame.width,
            frame.height,
            frame.format.name,
            frame.colorspace,
            frame.color_range,
            frame.rotation,
        )
        if kind != self.kind:
            self.kind, self.graph = kind, self._build(frame)
        self.graph.push(frame)
        return self.graph.pull()

    def _build(self, frame: av.VideoFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        graph.threads = 1  # Small frames are done before more threads have woken up.
        about = {"video_size": f"{frame.width}x{frame.height}", "pix_fmt": frame.format.name, "time_base": "1/1000",
                 "colorspace": int(frame.colorspace), "range": int(frame.color_range)}  # fmt: skip
        nodes = [graph.add("buffer", ":".join(f"{key}={value}" for key, value in about.items()))]
        nodes += [graph.add(name, arguments) for name, arguments in self.filters(tuple(turns_of(frame)))]
        graph.link_nodes(*nodes, graph.add("buffersink")).configure()
        return graph

    def filters(self, turns: tuple) -> list[tuple[str, str]]:
        raise NotImplementedError


class Converters:
    """Frames of any size, colour and orientation to RGB arrays of any size."""

    def __init__(self, aspect: Fraction | None):
        self.aspect, self.known = aspect, {}

    def __call__(self, frame: av.VideoFrame, size: int | None, crop: bool) -> np.ndarray:
        """uint8 (size, size, 3), or (H, W, 3) without `size`."""
        if (size, crop) not in self.known:
            self.known[size, crop] = Converter(size, crop, self.aspect)
        return self.known[size, crop].pull(frame).to_ndarray()


class Converter(Chain):
    def __init__(self, size: int | None, crop: bool, aspect: Fraction | None):
        super().__init__()
        self.size, self.crop, self.aspect = size, crop, aspect

    def filters(self, turns: tuple) -> list[tuple[str, str]]:
        stretch = []
        if self.aspect not in (None, 0, 1):  # pixels that are not square
            stretch = [("scale", f"trunc(iw*{self.aspect}+0.5):ih:flags={SCALE_FLAGS}")]
        return [*stretch, *turns, *filters(self.size, self.crop)]


class SceneDetector(Chain):
    """Whether a frame is the first of a new scene."""

    def __init__(self, threshold: float):
        super().__init__()
        self.threshold = threshold

    def __call__(self, frame: av.VideoFrame) -> bool:
        return "lavfi.scd.time" in self.pull(frame).metadata

    def filters(self, turns: tuple) -> list[tuple[str, str]]:
        return [("scdet", f"threshold={self.threshold}")]


def filters(size: int | None, crop: bool) -> list[tuple[str, str]]:
    """(name, arguments) of the ffmpeg filters between an upright frame and the array.

    Cropping comes first: the sides that go are not resized, and what is resized is a square, to the pixel, or where
    colours are stored in pairs of pixels to the pair. On the way through a resize, planes of green, blue and red (gbrp)
    come up to three times as fast as rgb24, and are the same numbers.
    """
    if size is None:
        return [("format", "rgb24")]
    square = [("crop", "'min(iw,ih)':'min(iw,ih)'")] if crop else []
    return [*square, ("scale", f"{size}:{size}:flags={SCALE_FLAGS}"), ("format", "gbrp")]


def turns_of(frame: av.VideoFrame) -> Iterator[tuple[str, str]]:
    """Filters that put a frame upright, by the matrix that phones write: x' = a x + c y, y' = b x + d y."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if a == d == 0 and b and c:
        yield "transpose", "cclock_flip"  # x' = y, y' = x
        a, d = c, b
    if a < 0:
        yield "hflip", ""
    if d < 0:
        yield "vflip", ""
