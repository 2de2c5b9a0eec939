"""One pass over a video file: which frames it has, where its scenes change, and the frames asked for as arrays.

PyAV decodes (the ffmpeg program's `-ss` and `fps_mode` lose or double frames of real files). Only frames that
somebody asks for are resized and turned into RGB, so that memory does not grow with the length of a video.
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
import PIL
from av.stream import Disposition

from hrvgan.errors import SlowVideoError, VideoError
from hrvgan.video.convert import Converters, Picture, SceneDetector

FALLBACK_FPS = 25.0  # where a file says nothing about time
LEAST_DECODED = 0.95  # Healthy xvid files are 2 frames short of their header; a cut one is short by far more.
MOST_PIXELS = 2**26  # of a frame, 8192x8192: a damaged header may promise more than there is memory

# A file's bytes, not its name, decide what reads it: a playlist or a script named .avi could name other files
# and addresses.
DEMUXERS = "avi,mov,matroska,mpeg,mpegts,asf,flv,ogg"
TIMED = ("mov", "matroska", "flv")  # Their headers say how long they are.


@dataclass(frozen=True)
class Facts:
    """What one pass found: numbers count frames after resampling, `decoded` and `promised` those of the file."""

    num_frames: int
    fps: float
    cuts: tuple[int, ...]  # the first frame of each scene but the first
    decoded: int
    promised: int  # by the container, without what an edit list hides; 0 where it does not


def decode(
    path: str | Path,
    wanted: Callable[[int], bool],
    put: Callable[[int, Picture], None],
    *,
    fps: float = 0.0,
    scene_cut: float = 0.0,
    deadline: float = math.inf,
) -> Facts:
    """Decode all of `path`; `put(n, picture)` gets each frame n = 0, 1, 2 ... that is `wanted(n)`.

    With `fps`, frames are those of that many a second, else each as it is; with `scene_cut`, a scene is new where
    ffmpeg's scdet scores that much or more of 100. Raises VideoError if the file is missing, is no video, gives
    fewer than 95 % of the frames, or where they are not counted of the time, that its container promises, or is not
    done by `deadline` (of time.monotonic()).
    """
    with open_video(path) as (container, stream):
        look, clock = Converters(stream.sample_aspect_ratio), Clock(container, stream, fps)
        is_cut = SceneDetector(scene_cut) if scene_cut else lambda frame: False
        cuts, decoded, number, at_cut = [], 0, 0, False
        packets = Packets(container, stream, path, deadline)
        frames = clock.repeats(packets.frames())
        for decoded, (frame, repeats) in enumerate(frames, 1):  # noqa: B007
            at_cut |= is_cut(frame)  # Of a frame that resampling leaves out, the next one takes the cut over.
            if repeats and at_cut:
                cuts += [number] if number else []
                at_cut = False
            for n in range(number, number + repeats):
                packets.hurry()  # A time that is wrong may make a frame last for years.
                if wanted(n):
                    put(n, partial(look, frame))
            number += repeats
        return Facts(number, fps or clock.rate, tuple(cuts), decoded, packets.check(decoded))


def expected_frames(path: str | Path, fps: float = 0.0) -> int:
    """How many frames `decode` will most likely find, from the header or the packets, without decoding."""
    with open_video(path) as (container, stream):
        count = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
        return int(count * Fraction(fps) / Fraction(rate_of(stream)) + Fraction(1, 2)) if fps else count


@contextlib.contextmanager
def open_video(path: str | Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The container and its video stream, the best if there are several; every error of ffmpeg inside becomes a
    VideoError."""
    options = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS}
    try:
        with av.open(f"file:{path}", options=options, metadata_errors="replace") as container:
            stream = container.streams.best("video")
            if (
                stream is None or stream.disposition & Disposition.attached_pic
            ):  # the picture on a record's cover
                raise VideoError(f"{path}: no video stream in it; remove the file or replace it")
            if stream.codec_context is None:
                raise VideoError(
                    f"{path}: its codec is unknown here; encode it with another one, or remove it"
                )
            stream.codec_context.thread_count = 1  # Parallel over videos is faster than inside one.
            stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        cause = error.strerror or error
        raise VideoError(f"{path}: cannot be decoded ({cause}); remove or replace it") from error


def rate_of(stream: av.VideoStream) -> float:
    return float(stream.average_rate or stream.guessed_rate or FALLBACK_FPS)


class Packets:
    """The packets of a file on their way through the decoder, until `deadline`, and what they say of their number."""

    def __init__(self, container, stream, path: str | Path, deadline: float):
        self.container, self.stream, self.path, self.deadline = container, stream, path, deadline
        self.shown = 0  # packets of the video that an edit list does not hide
        self.ends = {}  # stream -> when its last packet is over, in ticks of its time base

    def frames(self) -> Iterator[av.VideoFrame]:
        for packet in self.container.demux(self.stream, *self.container.streams.audio):
            self.hurry()
            self._note(packet)
            if packet.stream is not self.stream:
                continue
            try:
                yield from packet.decode()
            except av.InvalidDataError:
                continue  # A damaged packet costs its own frames; the count says whether too many are gone.

    def hurry(self) -> None:
        if time.monotonic() > self.deadline:
            raise SlowVideoError(
                f"{self.path}: took too long to decode; raise extract.time_limit or replace it"
            )

    def _note(self, packet: av.Packet) -> None:
        number = packet.stream.index
        self.shown += number == self.stream.index and packet.size > 0 and not packet.is_discard
        shown_at = packet.dts if packet.pts is None else packet.pts
        if shown_at is not None:
            end = shown_at + (packet.duration or 0)
            self.ends[number] = max(end, self.ends.get(number, end))

    def check(self, decoded: int) -> int:
        """How many frames the container promises, 0 if it does not. Raises VideoError if too much is missing."""
        promised, slack = self.stream.frames, 1 / Fraction(rate_of(self.stream))
        cut = [times for times in self._lengths() if times[0] < LEAST_DECODED * times[1] - slack]
        if not cut and _kind(self.container) == "mov":
            promised = min(promised, self.shown)
        if decoded == 0 or decoded < LEAST_DECODED * promised:
            counts = f"{decoded} of {promised or 'its'} frames decode"
            raise VideoError(f"{self.path}: {counts}; cut or damaged, replace it")
        if cut and not promised:
            times = f"ends after {float(cut[0][0]):.2f} of {float(cut[0][1]):.2f} s"
            raise VideoError(f"{self.path}: {times}; cut or damaged, replace it")
        return promised

    def _lengths(self) -> list[tuple[Fraction, Fraction]]:
        """Seconds at which packets end, and should end: of each stream, or where its header says nothing, of all."""
        streams = [self.stream, *self.container.streams.audio]
        if _kind(self.container) not in TIMED:
            return []  # ffmpeg guesses, from what is there.
        ends = {stream: self.ends.get(stream.index, 0) * stream.time_base for stream in streams}
        if any(stream.duration for stream in streams):
            return [
                (end, stream.duration * stream.time_base) for stream, end in ends.items() if stream.duration
            ]
        return [(max(ends.values()), Fraction(self.container.duration or 0, av.time_base))]


def _kind(container) -> str:
    return container.format.name.partition(",")[0]


class Clock:
    """When frames are shown. At a given rate, a frame fills the slots from its own time to the next one's, as
    ffmpeg's filter `fps` does; that filter itself would drop the frames of avis, whose times run backwards."""

    def __init__(self, container, stream, fps: float):
        self.fps, self.rate = fps, rate_of(stream)
        self.tick = None if container.format.name == "avi" else stream.time_base
        self.start = self.last = None

    def repeats(self, frames: Iterator[av.VideoFrame]) -> Iterator[tuple[av.VideoFrame, int]]:
        """Each frame with the number of slots that it fills, 1 each where the rate is the file's own."""
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
            yield held, max(end, 1) - since  # At least one frame comes of every video.

    def _time(self, number: int, frame: av.VideoFrame) -> Fraction:
        """Seconds since the first frame, never less than the last one's."""
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
    """Of the libraries that decode; clips made by other ones are the same, as far as is known."""
    libraries = {name: ".".join(map(str, version)) for name, version in sorted(av.library_versions.items())}
    return {"av": av.__version__, "pillow": PIL.__version__, **libraries}
