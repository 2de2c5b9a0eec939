"""Cut one video file into clips and record the outcome."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from hrvgan.clipstore.writer import motion
from hrvgan.errors import InputError, VideoError
from hrvgan.extraction.near_duplicates import THUMBNAIL, fingerprint, shown_frames
from hrvgan.video.decode import DecodeResult, Render, decode, expected_frames
from hrvgan.video.io import is_strip, probe, read_strip
from hrvgan.video.readers import PICTURES_FPS, numbering_gaps

# Raise it when the same file and parameters would give other clips: existing stores are then extracted again.
DECODING = 8
# Index mapping (n-th frame of the clip, length of the video) -> frame of a video that is shorter than a clip.
SHORT: dict[str, Callable[[int, int], int] | None] = {
    "drop": None,
    "loop": lambda n, length: n % length,
    "hold": lambda n, length: min(n, length - 1),
}

OnClip = Callable[[int, np.ndarray], None]


@dataclass(frozen=True)
class ClipSpec:
    """Shape and selection of the clips of a video; the fields are the arguments of `extract`."""

    size: int
    num_frames: int
    frame_step: int
    clips_per_video: int
    crop: bool
    min_motion: float
    fps: float
    scene_cut: float
    short: str = "drop"
    enlarge: bool = False

    def __post_init__(self):
        if self.short not in SHORT:
            raise InputError(f"extract.short {self.short!r} is unknown; known: {', '.join(SHORT)}")
        if min(astuple(self)[:4]) < 1:
            raise InputError(f"extract: {self}: size, num_frames, frame_step and clips_per_video start at 1")
        if min(self.min_motion, self.fps, self.scene_cut) < 0:
            raise InputError(f"extract: {self}: min_motion, fps and scene_cut start at 0")

    @property
    def span(self) -> int:
        """Number of video frames between the first and the last frame of a clip, inclusive."""
        return (self.num_frames - 1) * self.frame_step + 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.num_frames, self.size, self.size, 3

    def recipe(self) -> dict:
        """Everything that determines the clips of a file, for comparison with an existing store."""
        return {**asdict(self), "decoding": DECODING}


@dataclass
class Record:
    """Outcome of cutting one file, without the frames."""

    num_frames: int = 0
    fps: float = 0.0
    clips: list[dict] = field(default_factory=list)  # start_frame, motion, and sha256 of the frames as digest
    stills: list[float] = field(default_factory=list)  # motions of the clips that were dropped for too little
    fingerprint: bytes = b""
    failure: str = ""  # unreadable, small, short or static
    cause: str = ""
    warning: str = ""
    lasting: bool = True  # Another attempt would have the same outcome.


def cut_video(path: Path, spec: ClipSpec, on_clip: OnClip, deadline: float = math.inf) -> Record:
    """Cut the file `path` and return its record.

    `on_clip(n, clip)` receives the clips, uint8 (T, H, W, 3), that move enough, n = 0, 1, 2 ... If the header of the
    file turns out to be wrong, it receives all of them again from n = 0. Raises VideoError.
    """
    width, height, *_ = (0, 0) if spec.enlarge else probe(path)
    if 0 < min(width, height) < spec.size:
        cause = f"{width}x{height} px, need {spec.size}; lower extract.size or set extract.enlarge"
        return Record(failure="small", cause=cause)
    if is_strip(path):
        builder, result = _cut_strip(path, spec, on_clip)
    else:
        builder, result = _cut_frames(path, spec, on_clip, deadline)
    record = builder.record
    record.num_frames, record.fps = result.num_frames, result.fps
    if not builder.clips:
        record.failure, record.cause = "short", _short(result, spec)
        return record
    gaps = numbering_gaps(path) if Path(path).is_dir() else ""
    record.warning = "; ".join(filter(None, (result.mismatch, gaps)))
    record.fingerprint = fingerprint(builder.thumbnails)
    if not record.clips:
        record.failure, most = "static", f"moves by {max(record.stills):.2f} levels at most"
        record.cause = f"{most}; lower extract.min_motion or drop the video"
    return record


def _short(result: DecodeResult, spec: ClipSpec) -> str:
    start, end = _longest_scene(result.num_frames, result.cuts)
    scene = f" in the longest of {len(result.cuts) + 1} scenes" if result.cuts else ""
    return f"{end - start} frames{scene}, need {spec.span}; lower extract.num_frames or drop the video"


def _cut_strip(path: Path, spec: ClipSpec, on_clip: OnClip) -> tuple["_ClipBuilder", DecodeResult]:
    """Cut a strip without resampling or scene detection: it has no timing and is one scene."""
    frames = read_strip(path, spec.size)
    builder = _ClipBuilder(len(frames), clip_frames(len(frames), (), spec), spec, on_clip)
    for number in filter(builder.needs, range(len(frames))):
        builder.add(number, lambda *_, number=number: frames[number])
    return builder, DecodeResult(len(frames), PICTURES_FPS, (), len(frames), len(frames))


def _cut_frames(path: Path, spec: ClipSpec, on_clip: OnClip, deadline: float) -> tuple["_ClipBuilder", DecodeResult]:
    """Decode with the length that the header declares; decode again if length or scenes differ from that guess.

    Most files need one pass.
    """
    num_frames, cuts = expected_frames(path, spec.fps), ()
    options = {"fps": spec.fps, "scene_cut": spec.scene_cut, "deadline": deadline}
    for _ in range(2):
        builder = _ClipBuilder(num_frames, clip_frames(num_frames, cuts, spec), spec, on_clip)
        result = decode(path, builder.needs, builder.add, **options)
        clips = clip_frames(result.num_frames, result.cuts, spec)
        if result.num_frames == num_frames and clips == builder.clips:
            return builder, result
        num_frames, cuts = result.num_frames, result.cuts
        if not clips:
            return _ClipBuilder(num_frames, [], spec, on_clip), result
    raise VideoError(f"{path}: yields different frames in each pass; replace it")


class _ClipBuilder:
    """Collects the frames of `clips`, given by frame numbers; a clip is handed on and recorded when its last arrives.

    Clips may overlap; only those that overlap in time are in memory together. The frames of the fingerprint are kept as
    uncropped thumbnails: a crop is not exactly the same in a mirrored video.
    """

    def __init__(self, num_frames: int, clips: list[list[int]], spec: ClipSpec, on_clip: OnClip):
        self.clips, self.spec, self.on_clip = clips, spec, on_clip
        self.positions, self.thumbnails = defaultdict(list), []
        for clip, numbers in enumerate(clips):
            for position, number in enumerate(numbers):
                self.positions[number].append((clip, position))
        self.shown = set(shown_frames(num_frames) if clips else ())
        self.unfinished, self.num_missing = {}, [spec.num_frames] * len(clips)
        self.record = Record()

    def needs(self, number: int) -> bool:
        return number in self.positions or number in self.shown

    def add(self, number: int, render: Render) -> None:
        if number in self.shown:
            self.thumbnails.append(render(THUMBNAIL, False))
        if number not in self.positions:
            return
        frame = render(self.spec.size, self.spec.crop)
        for clip, position in self.positions[number]:
            if clip not in self.unfinished:
                self.unfinished[clip] = np.empty(self.spec.shape, np.uint8)
            self.unfinished[clip][position] = frame
            self.num_missing[clip] -= 1
            if not self.num_missing[clip]:
                self._finish(self.clips[clip][0], self.unfinished.pop(clip))

    def _finish(self, start: int, clip: np.ndarray) -> None:
        moved = float(np.float32(motion(clip)))  # in the precision of the store
        if moved < self.spec.min_motion:
            self.record.stills.append(moved)
            return
        self.on_clip(len(self.record.clips), clip)
        digest = hashlib.sha256(clip.data).hexdigest()
        self.record.clips.append({"start_frame": start, "motion": moved, "digest": digest})


def clip_frames(num_frames: int, cuts: tuple[int, ...], spec: ClipSpec) -> list[list[int]]:
    """Frame numbers of each clip; one clip or none of a video that is too short, as `spec.short` says."""
    steps = range(0, spec.span, spec.frame_step)
    if starts := clip_starts(num_frames, cuts, spec):
        return [[start + step for step in steps] for start in starts]
    start, end = _longest_scene(num_frames, cuts)
    fold = SHORT[spec.short]
    return [[start + fold(step, end - start) for step in steps]] if fold and end > start else []


def _longest_scene(num_frames: int, cuts: tuple[int, ...]) -> tuple[int, int]:
    """First frame of the longest scene, and the frame after its last."""
    return max(pairwise((0, *cuts, num_frames)), key=lambda scene: scene[1] - scene[0])


def clip_starts(num_frames: int, cuts: tuple[int, ...], spec: ClipSpec) -> list[int]:
    """First frames of at most `clips_per_video` clips, evenly spread over all starts that fit into a scene."""
    scenes = pairwise((0, *cuts, num_frames))
    # Ranges, not lists: a damaged header may declare a trillion frames.
    starts = [range(start, end - spec.span + 1) for start, end in scenes if end - start >= spec.span]
    total = sum(map(len, starts))
    return [_nth(starts, position) for position in spread(total - 1, spec.clips_per_video)] if total else []


def _nth(ranges: list[range], position: int) -> int:
    for numbers in ranges:
        if position < len(numbers):
            return numbers[position]
        position -= len(numbers)
    raise IndexError(position)


def spread(last: int, count: int) -> list[int]:
    """At most `count` different integers, evenly spread from 0 to `last`; a single one in the middle."""
    if count == 1:
        return [last // 2]
    return np.unique(np.linspace(0, last, count).round().astype(int)).tolist()
