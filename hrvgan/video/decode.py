"""Single pass over a video file: count and time its frames, find scene cuts, convert the frames that are wanted.

PyAV decodes (the ffmpeg program's `-ss` and `fps_mode` lose or double frames of real files). Interlaced frames are
deinterlaced; only wanted ones are turned upright, resized and converted to RGB of SDR. Memory does not grow with the
length of a video.
"""

import contextlib
import functools
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL

from hrvgan.video.hdr import is_hdr, to_sdr
from hrvgan.video.readers import PacketReader, PictureReader, check_deadline, open_reader

# Bicubic with its exact paths: the same bytes whatever SIMD the CPU has.
SCALE_FLAGS = "bicubic+accurate_rnd+full_chroma_int+bitexact"
HD_HEIGHT = 720  # Players take video without a colour tag as BT.709 from so many lines on, else as BT.601.
UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED

Filters = list[tuple[str, str]]  # name and arguments of each filter
Render = Callable[[int | None, bool], np.ndarray]  # (size, crop) -> frame, uint8 (H, W, 3)


@dataclass(frozen=True)
class DecodeResult:
    """Frame counts, rate and scene cuts of a decoded file.

    `num_frames` and `cuts` count frames after resampling, `num_decoded` and `num_declared` those of the file.
    """

    num_frames: int
    fps: float
    cuts: tuple[int, ...]  # first frame of each scene except the first scene
    num_decoded: int
    num_declared: int  # by the container, without what an edit list hides; 0 if it declares none

    @property
    def mismatch(self) -> str:
        """Message if the container declares another number of frames than were decoded, "" otherwise."""
        if self.num_declared in (0, self.num_decoded):
            return ""
        return f"{self.num_decoded} frames decoded, {self.num_declared} in its header"


def decode(
    path: str | Path,
    wanted: Callable[[int], bool],
    on_frame: Callable[[int, Render], None],
    *,
    fps: float = 0.0,
    scene_cut: float = 0.0,
    deadline: float = math.inf,
) -> DecodeResult:
    """Decode all of `path`; call `on_frame(n, render)` for each frame n = 0, 1, 2 ... with `wanted(n)`.

    With `fps`, frames are resampled to that rate, otherwise taken as they are; with `scene_cut`, a scene begins where
    ffmpeg's scdet scores at least that much of 100. Raises VideoError if the file is missing, is no video, yields
    fewer than 95 % of the frames (or, where they are not counted, of the duration) that its container declares, or
    is not done by `deadline` (of time.monotonic()).
    """
    with open_reader(path, deadline) as reader:
        convert = frame_converter(reader.aspect)
        is_cut = scene_detector(scene_cut) if scene_cut else lambda frame: False
        cuts, decoded, number, at_cut = [], 0, 0, False
        for decoded, (frame, repeats) in enumerate(_resample(reader, fps), 1):  # noqa: B007
            at_cut |= is_cut(frame)  # If resampling drops this frame, the next one is the first of the scene.
            if repeats and at_cut:
                cuts += [number] if number else []
                at_cut = False
            for n in range(number, number + repeats):
                check_deadline(path, deadline)  # A wrong timestamp may make a frame last for years.
                if wanted(n):
                    on_frame(n, functools.partial(convert, frame))
            number += repeats
        declared = reader.check_complete(decoded)
        return DecodeResult(number, fps or reader.rate, tuple(cuts), decoded, declared)


def expected_frames(path: str | Path, fps: float = 0.0) -> int:
    """Number of frames that `decode` will most likely find, by the header or the packets, without decoding."""
    with open_reader(path) as reader:
        count = reader.count()
        return _slot(count / Fraction(reader.rate), fps) if fps else count


def _resample(reader: PacketReader | PictureReader, fps: float) -> Iterator[tuple[av.VideoFrame, int]]:
    """Yield each frame with the number of slots of `fps` that it fills, 1 without resampling.

    As by ffmpeg's filter `fps`, a frame fills the slots until the next frame's time. That filter itself would drop the
    frames of avis, whose timestamps run backwards: theirs, and others without timestamp, are timed by their number.
    """
    frames = deinterlaced(reader.frames())
    if not fps:
        yield from ((frame, 1) for frame in frames)
        return
    held, start, since = None, None, 0
    step, now = 1 / Fraction(reader.rate), Fraction(0)  # seconds; `now` since the first frame
    for number, frame in enumerate(frames):
        if reader.tick is None or frame.pts is None:
            shown_at = number * step
        else:
            start = frame.pts if start is None else start
            shown_at = (frame.pts - start) * reader.tick
        now = max(now, shown_at)
        slot = _slot(now, fps)
        if held is not None:
            yield held, slot - since
        held, since = frame, slot
    if held is not None:
        yield held, max(_slot(now + step, fps), 1) - since  # Every video yields at least one frame.


def _slot(seconds: Fraction, fps: float) -> int:
    return int(seconds * Fraction(fps) + Fraction(1, 2))  # round half up, as ffmpeg does


class FilterGraph:
    """Filter graph `make_filters(frame)`, which is made again when the format of its input changes in mid-video."""

    def __init__(self, make_filters: Callable[[av.VideoFrame], Filters]):
        self.make_filters, self.format, self.graph = make_filters, None, None

    def apply(self, frame: av.VideoFrame) -> av.VideoFrame:
        if (format := format_of(frame)) != self.format:
            tags = [("setparams", "colorspace=bt709")] if is_untagged_hd(frame) else []
            self.format, self.graph = format, make_graph(frame, [*tags, *self.make_filters(frame)])
        self.graph.push(frame)
        return self.graph.pull()


def format_of(frame: av.VideoFrame) -> tuple:
    # Not the frame's side data: reading them makes a reference cycle, which is freed much later.
    size = frame.width, frame.height
    return (*size, frame.format.name, frame.colorspace, frame.color_range, frame.rotation)


def make_graph(frame: av.VideoFrame, filters: Filters) -> av.filter.Graph:
    """Graph of `filters` for frames of the same format as `frame`."""
    graph = av.filter.Graph()
    graph.threads = 1  # Small frames are done before more threads have woken up.
    source = {"video_size": f"{frame.width}x{frame.height}", "pix_fmt": frame.format.name, "time_base": "1/1000",
              "colorspace": int(frame.colorspace), "range": int(frame.color_range)}  # fmt: skip
    nodes = [graph.add("buffer", ":".join(f"{key}={value}" for key, value in source.items()))]
    nodes += [graph.add(name, arguments) for name, arguments in filters]
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    return graph


def deinterlaced(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """The same frames; those that say they are interlaced, by ffmpeg's filter yadif, which is one frame behind."""
    graph, format, times = None, None, deque()

    def out() -> Iterator[av.VideoFrame]:
        with contextlib.suppress(av.BlockingIOError, av.EOFError):
            while True:
                frame = graph.pull()
                frame.pts = times.popleft()  # yadif counts in half ticks.
                yield frame

    for frame in frames:
        if graph and format_of(frame) != format:
            graph.push(None)
            yield from out()
            graph = None
        if not (graph or frame.interlaced_frame):
            yield frame
            continue
        if not graph:
            graph, format = make_graph(frame, [("yadif", "deint=interlaced")]), format_of(frame)
        times.append(frame.pts)
        graph.push(frame)
        yield from out()
    if graph:
        graph.push(None)
        yield from out()


def frame_converter(aspect: Fraction | None) -> Callable[[av.VideoFrame, int | None, bool], np.ndarray]:
    """Return `convert(frame, size, crop)` -> uint8 (size, size, 3), or (H, W, 3) if size is None, as of `filters`.

    `aspect` is width / height of a pixel; None, 0 and 1 are square.
    """
    square = aspect in (None, 0, 1)
    stretch = [] if square else [("scale", f"trunc(iw*{aspect}+0.5):ih:flags={SCALE_FLAGS}")]

    @functools.cache
    def graph(size: int | None, crop: bool, hdr: bool) -> FilterGraph:
        return FilterGraph(lambda frame: [*stretch, *turns_of(frame), *filters(size, crop, 16 if hdr else 8)])

    def convert(frame: av.VideoFrame, size: int | None, crop: bool) -> np.ndarray:
        hdr = is_hdr(frame)
        rgb = graph(size, crop, hdr).apply(frame).to_ndarray()
        return to_sdr(rgb, frame.color_trc, frame.color_primaries) if hdr else rgb

    return convert


def scene_detector(threshold: float) -> Callable[[av.VideoFrame], bool]:
    """Return `is_cut(frame)`, which tells of successive frames if each begins a new scene."""
    graph = FilterGraph(lambda frame: [("scdet", f"threshold={threshold}")])
    return lambda frame: "lavfi.scd.time" in graph.apply(frame).metadata


def filters(size: int | None, crop: bool, bits: int = 8) -> Filters:
    """Ffmpeg filters (name, arguments) between an upright frame and the array.

    Cropping comes first, so that the borders are not resized: a square is, exact to the pixel, or with subsampled
    chroma to the pair. Planar gbrp takes a resize up to three times faster than rgb24 does, with the same values.
    """
    packed, planar = ("rgb24", "gbrp") if bits == 8 else ("rgb48le", "gbrp16le")
    if size is None:
        return [("format", packed)]
    square = [("crop", "'min(iw,ih)':'min(iw,ih)'")] if crop else []
    return [*square, ("scale", f"{size}:{size}:flags={SCALE_FLAGS}"), ("format", planar)]


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


def versions() -> dict[str, str]:
    """Versions of the decoding libraries; as far as is known, clips do not depend on them."""
    libraries = {name: ".".join(map(str, version)) for name, version in sorted(av.library_versions.items())}
    return {"av": av.__version__, "pillow": PIL.__version__, **libraries}
