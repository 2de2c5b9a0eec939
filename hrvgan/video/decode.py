"""Single pass over a video file: count and time its frames, find scene cuts, convert the frames that are wanted.

PyAV decodes (the ffmpeg program's `-ss` and `fps_mode` lose or double frames of real files). Only wanted frames are
resized and converted to RGB, and memory does not grow with the length of a video.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import PIL
from av.stream import Disposition

from hrvgan.errors import SlowVideoError, VideoError
from hrvgan.video.convert import frame_converter, scene_detector
from hrvgan.video.pictures import MIN_DECODED, PICTURES_FPS, PictureReader, check_count

FALLBACK_FPS = 25.0  # for files without timing
MAX_PIXELS = 2**26  # of a frame, 8192x8192: a damaged header may declare more than there is memory

# The content of a file, not its name, selects the demuxer: a playlist or a script named .avi could refer to other
# files and addresses.
DEMUXERS = "avi,mov,matroska,mpeg,mpegvideo,mpegts,asf,flv,ogg,gif"
TIMED = ("mov", "matroska", "flv")  # containers whose header has the duration

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
    with _open_reader(path, fps, deadline) as (reader, resampler, aspect):
        convert = frame_converter(aspect)
        is_cut = scene_detector(scene_cut) if scene_cut else lambda frame: False
        cuts, decoded, number, at_cut = [], 0, 0, False
        for decoded, (frame, repeats) in enumerate(resampler.repeats(reader.frames()), 1):  # noqa: B007
            at_cut |= is_cut(frame)  # If resampling drops this frame, the next one is the first of the scene.
            if repeats and at_cut:
                cuts += [number] if number else []
                at_cut = False
            for n in range(number, number + repeats):
                check_deadline(path, deadline)  # A wrong timestamp may make a frame last for years.
                if wanted(n):
                    on_frame(n, partial(convert, frame))
            number += repeats
        declared = reader.check_complete(decoded)
        return DecodeResult(number, fps or resampler.rate, tuple(cuts), decoded, declared)


@contextlib.contextmanager
def _open_reader(path: str | Path, fps: float, deadline: float) -> Iterator[tuple]:
    """Reader of the frames of a file or of a folder of pictures, their resampler, and the aspect of a pixel."""
    if Path(path).is_dir():
        yield PictureReader(path), Resampler(PICTURES_FPS, None, fps), None
        return
    with open_video(path) as (container, stream):
        tick = None if container.format.name == "avi" else stream.time_base
        reader = PacketReader(container, stream, path, deadline)
        yield reader, Resampler(rate_of(stream), tick, fps), stream.sample_aspect_ratio


def expected_frames(path: str | Path, fps: float = 0.0) -> int:
    """Number of frames that `decode` will most likely find, by the header or the packets, without decoding."""
    if Path(path).is_dir():
        count, rate = len(PictureReader(path).paths), PICTURES_FPS
    else:
        with open_video(path) as (container, stream):
            count = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
            rate = rate_of(stream)
    return int(count * Fraction(fps) / Fraction(rate) + Fraction(1, 2)) if fps else count


@contextlib.contextmanager
def open_video(path: str | Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open the container and its best video stream; an error of ffmpeg inside the block becomes a VideoError."""
    options = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS}
    try:
        with av.open(f"file:{path}", options=options, metadata_errors="replace") as container:
            stream = container.streams.best("video")
            if stream is None or stream.disposition & Disposition.attached_pic:  # cover art
                raise VideoError(f"{path}: no video stream in it; remove the file or replace it")
            if stream.codec_context is None:
                raise VideoError(
                    f"{path}: its codec is unknown here; encode it with another one, or remove it"
                )
            stream.codec_context.thread_count = 1  # Parallel over videos is faster than inside one.
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        cause = error.strerror or error
        raise VideoError(f"{path}: cannot be decoded ({cause}); remove or replace it") from error


def rate_of(stream: av.VideoStream) -> float:
    return float(stream.average_rate or stream.guessed_rate or FALLBACK_FPS)


def check_deadline(path: str | Path, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise SlowVideoError(f"{path}: took too long to decode; raise extract.time_limit or replace it")


class PacketReader:
    """Decodes the packets of a file until `deadline`, and checks at the end that the file is complete."""

    def __init__(self, container, stream, path: str | Path, deadline: float):
        self.container, self.stream, self.path, self.deadline = container, stream, path, deadline
        self.num_shown = 0  # packets of the video that an edit list does not hide
        self.ends = {}  # stream -> end of its last packet, in ticks of its time base

    def frames(self) -> Iterator[av.VideoFrame]:
        frame = None
        for packet in self.container.demux(self.stream, *self.container.streams.audio):
            check_deadline(self.path, self.deadline)
            self._record(packet)
            if packet.stream is not self.stream:
                continue
            if packet.size == 0 and packet.pts is not None:  # Theora's way to show the frame before again
                if frame is not None:
                    frame.pts = packet.pts
                    yield frame
                continue
            try:
                for frame in packet.decode():
                    yield frame
            except av.InvalidDataError:
                continue  # A damaged packet loses its own frames; `check_complete` counts them.

    def _record(self, packet: av.Packet) -> None:
        number = packet.stream.index
        self.num_shown += number == self.stream.index and packet.size > 0 and not packet.is_discard
        shown_at = packet.dts if packet.pts is None else packet.pts
        if shown_at is not None:
            end = shown_at + (packet.duration or 0)
            self.ends[number] = max(end, self.ends.get(number, end))

    def check_complete(self, num_decoded: int) -> int:
        """Return the number of frames that the container declares, 0 if none. Raises VideoError if too many lack."""
        declared, slack = self.stream.frames, 1 / Fraction(rate_of(self.stream))
        truncated = [times for times in self._lengths() if times[0] < MIN_DECODED * times[1] - slack]
        if not truncated and _format(self.container) == "mov":
            declared = min(declared, self.num_shown)
        check_count(self.path, num_decoded, declared)
        if truncated and not declared:
            times = f"ends after {float(truncated[0][0]):.2f} of {float(truncated[0][1]):.2f} s"
            raise VideoError(f"{self.path}: {times}; cut or damaged, replace it")
        return declared

    def _lengths(self) -> list[tuple[Fraction, Fraction]]:
        """Actual and declared end, in seconds, of each stream, or of the file if no stream declares one."""
        streams = [self.stream, *self.container.streams.audio]
        if _format(self.container) not in TIMED:
            return []  # ffmpeg estimates the duration from the packets present.
        ends = {stream: self.ends.get(stream.index, 0) * stream.time_base for stream in streams}
        if any(stream.duration for stream in streams):
            return [
                (end, stream.duration * stream.time_base) for stream, end in ends.items() if stream.duration
            ]
        return [(max(ends.values()), Fraction(self.container.duration or 0, av.time_base))]


def _format(container) -> str:
    return container.format.name.partition(",")[0]


class Resampler:
    """Resamples frames to `fps` as ffmpeg's filter `fps` does: a frame fills the slots until the next frame's time.

    That filter itself would drop the frames of avis, whose timestamps run backwards.
    """

    def __init__(self, rate: float, tick: Fraction | None, fps: float):
        """`tick` is the unit of timestamps; without it, frames are timed by their number at `rate`."""
        self.rate, self.tick, self.fps = rate, tick, fps
        self.start = self.last = None

    def repeats(self, frames: Iterator[av.VideoFrame]) -> Iterator[tuple[av.VideoFrame, int]]:
        """Yield each frame with the number of slots that it fills, 1 without resampling."""
        if not self.fps:
            yield from ((frame, 1) for frame in frames)
            return
        held, since = None, 0
        for number, frame in enumerate(frames):
            slot = self._slot(self._time(number, frame))
            if held is not None:
                yield held, slot - since
            held, since = frame, slot
        if held is not None:
            end = self._slot(self.last + 1 / Fraction(self.rate))
            yield held, max(end, 1) - since  # Every video yields at least one frame.

    def _time(self, number: int, frame: av.VideoFrame) -> Fraction:
        """Seconds since the first frame, at least those of the frame before."""
        if self.tick is None or frame.pts is None:
            now = Fraction(number) / Fraction(self.rate)
        else:
            self.start = frame.pts if self.start is None else self.start
            now = (frame.pts - self.start) * self.tick
        self.last = now if self.last is None else max(self.last, now)
        return self.last

    def _slot(self, seconds: Fraction) -> int:
        return int(seconds * Fraction(self.fps) + Fraction(1, 2))  # round half up, as ffmpeg does


def versions() -> dict[str, str]:
    """Versions of the decoding libraries; as far as is known, clips do not depend on them."""
    libraries = {name: ".".join(map(str, version)) for name, version in sorted(av.library_versions.items())}
    return {"av": av.__version__, "pillow": PIL.__version__, **libraries}
