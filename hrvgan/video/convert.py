"""Decoded frames to upright RGB arrays of any size, and scene change detection, by ffmpeg filter graphs."""

import functools
from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import numpy as np

# Bicubic with its exact paths: the same bytes whatever SIMD the CPU has.
SCALE_FLAGS = "bicubic+accurate_rnd+full_chroma_int+bitexact"
HD_HEIGHT = 720  # Players take video without a colour tag as BT.709 from so many lines on, else as BT.601.
UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED

Filters = list[tuple[str, str]]  # name and arguments of each filter


class FilterGraph:
    """Filter graph that is rebuilt when the format of its input changes in mid-video.

    `make_filters(turns)` returns its filters; `turns` are those that put the frame upright.
    """

    def __init__(self, make_filters: Callable[[Filters], Filters]):
        self.make_filters, self.format, self.graph = make_filters, None, None

    def apply(self, frame: av.VideoFrame) -> av.VideoFrame:
        # Not the frame's side data: reading them makes a reference cycle, which is freed much later.
        size = frame.width, frame.height
        format = (*size, frame.format.name, frame.colorspace, frame.color_range, frame.rotation)
        if format != self.format:
            self.format, self.graph = format, self._build(frame)
        self.graph.push(frame)
        return self.graph.pull()

    def _build(self, frame: av.VideoFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        graph.threads = 1  # Small frames are done before more threads have woken up.
        source = {"video_size": f"{frame.width}x{frame.height}", "pix_fmt": frame.format.name, "time_base": "1/1000",
                  "colorspace": int(frame.colorspace), "range": int(frame.color_range)}  # fmt: skip
        nodes = [graph.add("buffer", ":".join(f"{key}={value}" for key, value in source.items()))]
        tags = [("setparams", "colorspace=bt709")] if is_untagged_hd(frame) else []
        chain = [*tags, *self.make_filters(list(turns_of(frame)))]
        nodes += [graph.add(name, arguments) for name, arguments in chain]
        graph.link_nodes(*nodes, graph.add("buffersink")).configure()
        return graph


def frame_converter(aspect: Fraction | None) -> Callable[[av.VideoFrame, int | None, bool], np.ndarray]:
    """Return `convert(frame, size, crop)` -> uint8 (size, size, 3), or (H, W, 3) if size is None, as of `filters`.

    `aspect` is width / height of a pixel; None, 0 and 1 are square.
    """
    square = aspect in (None, 0, 1)
    stretch = [] if square else [("scale", f"trunc(iw*{aspect}+0.5):ih:flags={SCALE_FLAGS}")]

    @functools.cache
    def graph(size: int | None, crop: bool) -> FilterGraph:
        return FilterGraph(lambda turns: [*stretch, *turns, *filters(size, crop)])

    return lambda frame, size, crop: graph(size, crop).apply(frame).to_ndarray()


def scene_detector(threshold: float) -> Callable[[av.VideoFrame], bool]:
    """Return `is_cut(frame)`, which tells of successive frames if each begins a new scene."""
    graph = FilterGraph(lambda turns: [("scdet", f"threshold={threshold}")])
    return lambda frame: "lavfi.scd.time" in graph.apply(frame).metadata


def filters(size: int | None, crop: bool) -> Filters:
    """Ffmpeg filters (name, arguments) between an upright frame and the array.

    Cropping comes first, so that the borders are not resized: a square is, exact to the pixel, or with subsampled
    chroma to the pair. Planar gbrp takes a resize up to three times faster than rgb24 does, with the same values.
    """
    if size is None:
        return [("format", "rgb24")]
    square = [("crop", "'min(iw,ih)':'min(iw,ih)'")] if crop else []
    return [*square, ("scale", f"{size}:{size}:flags={SCALE_FLAGS}"), ("format", "gbrp")]


def is_untagged_hd(frame: av.VideoFrame) -> bool:
    """True for frames of luma and chroma that do not say their matrix and have HD_HEIGHT lines or more."""
    has_matrix = not frame.format.is_rgb and len(frame.format.components) >= 3
    return has_matrix and frame.height >= HD_HEIGHT and frame.colorspace == UNSPECIFIED


def turns_of(frame: av.VideoFrame) -> Iterator[tuple[str, str]]:
    """Filters that put a frame upright, by the display matrix of phones: x' = a x + c y, y' = b x + d y."""
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
