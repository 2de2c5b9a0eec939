"""Readers of the frames of a video: of a file by its packets, of an animated WebP, or of a folder of numbered pictures,
one a frame."""

import contextlib
import itertools
import math
import os
import re
import struct
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from PIL import ExifTags, Image, ImageOps

from hrvgan.errors import SlowVideoError, VideoError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
WEBP = ".webp"
PICTURES_FPS = 25.0  # nominal: neither strips nor folders of frames have a timing
MIN_DECODED = 0.95  # Healthy xvid files are 2 frames short of their header; a truncated one lacks far more.
FALLBACK_FPS = 25.0  # for files without timing
BROWSER_TIME = 100  # milliseconds that browsers show a frame of a WebP that says 0
MAX_PIXELS = 2**26  # of a frame, 8192x8192: a damaged header may declare more than there is memory

# The content of a file, not its name, selects the demuxer: a playlist or a script named .avi could refer to other
# files and addresses.
DEMUXERS = "avi,mov,matroska,mpeg,mpegvideo,mpegts,asf,flv,ogg,gif"
TIMED = ("mov", "matroska", "flv")  # containers whose header has the duration


@contextlib.contextmanager
def open_reader(path: str | Path, deadline: float = math.inf) -> Iterator["PacketReader | PictureReader"]:
    """Open a folder of pictures, an animated WebP, or the best video stream of a file; an error of ffmpeg inside the
    block becomes a VideoError."""
    if Path(path).is_dir():
        yield PictureReader(path)
        return
    if Path(path).suffix.lower() == WEBP:
        yield WebpReader(path, deadline)
        return
    options = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS}
    try:
        with av.open(f"file:{path}", options=options, metadata_errors="replace") as container:
            stream = container.streams.best("video")
            if stream is None or stream.disposition & Disposition.attached_pic:  # cover art
                raise VideoError(f"{path}: no video stream in it; remove the file or replace it")
            if stream.codec_context is None:
                raise VideoError(f"{path}: its codec is unknown here; encode it with another one, or remove it")
            stream.codec_context.thread_count = 1  # Parallel over videos is faster than inside one.
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            yield PacketReader(container, stream, path, deadline)
    except (av.FFmpegError, OSError) as error:
        cause = error.strerror or error
        raise VideoError(f"{path}: cannot be decoded ({cause}); remove or replace it") from error


def check_deadline(path: str | Path, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise SlowVideoError(f"{path}: took too long to decode; raise extract.time_limit or replace it")


def _check_count(path: str | Path, num_decoded: int, num_declared: int) -> None:
    """Raise VideoError if too few frames decode; `num_declared` is 0 if it is unknown."""
    if num_decoded == 0 or num_decoded < MIN_DECODED * num_declared:
        counts = f"{num_decoded} of {num_declared or 'its'} frames decode"
        raise VideoError(f"{path}: {counts}; cut or damaged, replace it")


class PacketReader:
    """Decodes the packets of a file until `deadline`, and checks at the end that the file is complete."""

    def __init__(self, container, stream, path: str | Path, deadline: float):
        self.container, self.stream, self.path, self.deadline = container, stream, path, deadline
        self.format = container.format.name.partition(",")[0]
        self.rate = float(stream.average_rate or stream.guessed_rate or FALLBACK_FPS)
        self.tick = None if self.format == "avi" else stream.time_base
        self.aspect = stream.sample_aspect_ratio
        self.empty = _empty_chunks(stream) if self.format == "avi" else set()
        self.num_shown = 0  # packets of the video that an edit list does not hide
        self.ends = {}  # stream -> end of its last packet, in ticks of its time base

    @property
    def num_declared(self) -> int:
        return self.stream.frames

    def count(self) -> int:
        """Number of frames by the header, otherwise of packets."""
        return self.num_declared or sum(packet.size > 0 for packet in self.container.demux(self.stream))

    def size(self) -> tuple[int, int]:
        return self.stream.width, self.stream.height

    def frames(self) -> Iterator[av.VideoFrame]:
        frame, number = None, -1
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
            if self.empty and packet.dts is not None:
                for n in range(number + 1, packet.dts):
                    if n in self.empty and frame is not None:
                        yield frame
                number = packet.dts
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
        declared, slack = self.num_declared, 1 / Fraction(self.rate)
        truncated = [times for times in self._lengths() if times[0] < MIN_DECODED * times[1] - slack]
        if not truncated and self.format == "mov":
            declared = min(declared, self.num_shown)
        _check_count(self.path, num_decoded, declared)
        if truncated and not declared:
            times = f"ends after {float(truncated[0][0]):.2f} of {float(truncated[0][1]):.2f} s"
            raise VideoError(f"{self.path}: {times}; cut or damaged, replace it")
        return declared

    def _lengths(self) -> list[tuple[Fraction, Fraction]]:
        """Actual and declared end, in seconds, of each stream, or of the file if no stream declares one."""
        if self.format not in TIMED:
            return []  # ffmpeg estimates the duration from the packets present.
        streams = [self.stream, *self.container.streams.audio]
        ends = {stream: self.ends.get(stream.index, 0) * stream.time_base for stream in streams}
        declared = {stream: stream.duration * stream.time_base for stream in streams if stream.duration}
        whole = Fraction(self.container.duration or 0, av.time_base)
        return [(ends[stream], end) for stream, end in declared.items()] or [(max(ends.values()), whole)]


def _empty_chunks(stream) -> set[int]:
    """Numbers of the frames of an avi that are empty by its index, and so show the frame before again, as cameras that
    drop frames write them. A file that was cut has lost its index: nothing in it is taken for empty."""
    numbers = {entry.timestamp for entry in stream.index_entries}
    return set(range(max(numbers, default=0))) - numbers


class PictureReader:
    """Frames of a folder of pictures, with the face of the reader of a video's packets."""

    rate, tick, aspect = PICTURES_FPS, None, None

    def __init__(self, path: str | Path):
        self.path = path
        try:
            self.paths = frame_paths(path)
        except OSError as error:
            raise VideoError(f"{path}: cannot be read ({error.strerror}); remove or replace it") from error
        self.num_declared = len(self.paths)

    def count(self) -> int:
        return self.num_declared

    def frames(self) -> Iterator[av.VideoFrame]:
        for path in self.paths:
            # `check_complete` counts those that cannot be read.
            with contextlib.suppress(VideoError), open_picture(path) as image:
                yield av.VideoFrame.from_ndarray(to_rgb(image), "rgb24")

    def check_complete(self, num_decoded: int) -> int:
        _check_count(self.path, num_decoded, self.num_declared)
        return self.num_declared

    def size(self) -> tuple[int, int]:
        """Width and height of the first frame. Raises VideoError."""
        if not self.paths:
            raise VideoError(f"{self.path}: no frames in it; remove or replace it")
        with open_picture(self.paths[0]) as image:
            return image.size


class WebpReader(PictureReader):
    """Frames of an animated WebP by Pillow, as PyAV's ffmpeg decodes still ones alone."""

    tick = Fraction(1, 1000)

    def __init__(self, path: str | Path, deadline: float):
        self.path, self.deadline, self.times = path, deadline, webp_times(path)
        if not self.times:
            raise VideoError(f"{path}: no animation in it; remove or replace it")
        self.num_declared, self.rate = len(self.times), 1000 * len(self.times) / sum(self.times)

    def frames(self) -> Iterator[av.VideoFrame]:
        with open_picture(self.path) as image:
            for number, end in enumerate(itertools.accumulate(self.times)):
                check_deadline(self.path, self.deadline)
                image.seek(number)
                frame = av.VideoFrame.from_ndarray(to_rgb(image), "rgb24")
                frame.pts = end - self.times[number]
                yield frame

    def size(self) -> tuple[int, int]:
        with open_picture(self.path) as image:
            return image.size


def webp_times(path: str | Path) -> list[int]:
    """Milliseconds that each frame of an animated WebP is shown, by its headers; [] of anything else."""
    times = []
    with contextlib.suppress(OSError), open(path, "rb") as file:
        animated = file.read(12)[8:] == b"WEBP"
        while animated and len(header := file.read(8)) == 8:
            kind, size = struct.unpack("<4sI", header)
            if kind == b"ANMF":
                times.append(int.from_bytes(file.read(16)[12:15], "little") or BROWSER_TIME)
                size -= 16
            file.seek(size + size % 2, os.SEEK_CUR)
    return times


@contextlib.contextmanager
def open_picture(path: str | Path) -> Iterator[Image.Image]:
    """Open an image upright. Raises VideoError if it is none."""
    try:
        with Image.open(path) as image:
            if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                image = ImageOps.exif_transpose(image)
            yield image
    except VideoError:
        raise
    except (OSError, EOFError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"{path}: cannot be read as an image ({error}); remove or replace it") from error


def to_rgb(image: Image.Image) -> np.ndarray:
    """Pixels, uint8 (H, W, 3); alpha is dropped."""
    if image.mode.startswith("I"):  # Pillow would clip 16-bit grey at 255 instead of scaling it.
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    return np.asarray(image.convert("RGB"))


def frame_paths(folder: str | Path) -> list[Path]:
    """Pictures of a folder in the order of the numbers in their names."""
    files = (path for path in Path(folder).iterdir() if not path.name.startswith("."))
    return sorted((path for path in files if path.suffix.lower() in PICTURE_SUFFIXES), key=_number_key)


def _number_key(path: Path) -> list:
    return [int(part) if n % 2 else part for n, part in enumerate(re.split("([0-9]+)", path.stem))]


def numbering_gaps(folder: str | Path) -> str:
    """Message if numbers are missing between the frames of a folder, "" otherwise; frames may count in steps."""
    paths = frame_paths(folder)
    numbers = [re.findall("[0-9]+", path.stem)[-1:] for path in paths]
    if len(paths) < 2 or not all(numbers):
        return ""
    steps = np.diff([int(number) for (number,) in numbers])
    step = steps.min()
    if step < 1 or not (gaps := np.flatnonzero(steps > step)).size:
        return ""
    missing = int((steps // step - 1).sum())
    return f"{missing} frames are missing in its numbers, the first after {paths[gaps[0]].name}"


def are_frames(paths: list[Path]) -> bool:
    """True if pictures are frames of one video, and not strips, which divide into two or more squares."""
    sizes = []
    for path in paths:
        with contextlib.suppress(VideoError), open_picture(path) as image:
            sizes.append(image.size)
    return bool(sizes) and all(max(size) % min(size) or max(size) == min(size) for size in sizes)
