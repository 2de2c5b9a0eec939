"""One video file -> its clips and a record of them."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from hrvgan.clipstore.writer import motion
from hrvgan.errors import InputError, VideoError
from hrvgan.extraction.near_duplicates import THUMBNAIL, fingerprint
from hrvgan.video.decode import Facts, Picture, decode, expected_frames
from hrvgan.video.encode import count_warning, probe
from hrvgan.video.strips import STRIP_FPS, is_strip, open_strip, strip_frames

# Raise it when the same file and parameters would give other clips: stores made before are then cut anew.
DECODING = 3
# How a video that is shorter than a clip becomes long enough: frame n of the clip is which one of the video?
SHORT: dict[str, Callable[[int, int], int] | None] = {
    "drop": None,
    "loop": lambda n, length: n % length,
    "hold": lambda n, length: min(n, length - 1),
}

Keep = Callable[[int, np.ndarray], None]


@dataclass(frozen=True)
class Cut:
    """How clips are cut from a video, in the words of `extract`."""

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
        """How many frames of a video a clip reaches over."""
        return (self.num_frames - 1) * self.frame_step + 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.num_frames, self.size, self.size, 3

    def recipe(self) -> dict:
        """All that decides over the clips of a file."""
        return {**asdict(self), "decoding": DECODING}


@dataclass(frozen=True)
class Record:
    """What came of one file, all but the frames."""

    num_frames: int = 0
    fps: float = 0.0
    starts: tuple[int, ...] = ()
    motions: tuple[float, ...] = ()
    digests: tuple[str, ...] = ()  # sha256 of each clip's frames
    stills: tuple[float, ...] = ()  # motions of the clips that were left out
    fingerprint: bytes = b""
    failure: str = ""  # unreadable, small, short or static
    cause: str = ""
    warning: str = ""
    lasting: bool = True  # Another try would come to the same.


def failed(failure: str, cause: str, **more) -> Record:
    return Record(failure=failure, cause=cause, **more)


def cut_video(path: Path, cut: Cut, keep: Keep, deadline: float = math.inf) -> Record:
    """The record of a file. `keep(n, clip)` gets those of its clips, uint8 (T, H, W, 3), that move at least as much as
    asked, n = 0, 1, 2 ... - and, where the file turns out to be another than it says, all of them anew from 0 on."""
    if small := _too_small(path, cut):
        return small
    picker, facts = _pick_strip(path, cut, keep) if is_strip(path) else _pick_video(path, cut, keep, deadline)
    if not picker.clips:
        return replace(_short(facts, cut), num_frames=facts.num_frames, fps=facts.fps)
    record = Record(
        num_frames=facts.num_frames,
        fps=facts.fps,
        starts=tuple(picker.starts),
        motions=tuple(picker.motions),
        digests=tuple(picker.digests),
        stills=tuple(picker.stills),
        fingerprint=fingerprint(*picker.ends),
    )
    if facts.promised not in (0, facts.decoded):
        record = replace(record, warning=count_warning(path, facts.decoded, facts.promised).split(": ")[-1])
    if not record.starts:
        cause = (
            f"moves by {max(record.stills):.2f} levels at most; lower extract.min_motion or drop the video"
        )
        record = replace(record, failure="static", cause=cause)
    return record


def _too_small(path: Path, cut: Cut) -> Record | None:
    width, height, *_ = (0, 0) if cut.enlarge else probe(path)
    if 0 < min(width, height) < cut.size:
        return failed(
            "small", f"{width}x{height} px, need {cut.size}; lower extract.size or set extract.enlarge"
        )
    return None


def _short(facts: Facts, cut: Cut) -> Record:
    start, end = _longest(facts.num_frames, facts.cuts)
    scene = f" in the longest of {len(facts.cuts) + 1} scenes" if facts.cuts else ""
    return failed(
        "short", f"{end - start} frames{scene}, need {cut.span}; lower extract.num_frames or drop the video"
    )


def _pick_strip(path: Path, cut: Cut, keep: Keep) -> tuple["_Picker", Facts]:
    """A strip says nothing about time and was cut by somebody: it is not resampled, nor searched for scenes."""
    with open_strip(path) as image:
        frames = strip_frames(image, cut.size)
    picker = _Picker(clip_frames(len(frames), (), cut), cut, keep)
    for number in sorted(picker.places):
        picker.put(number, lambda *_, number=number: frames[number])
    return picker, Facts(len(frames), STRIP_FPS, (), len(frames), len(frames))


def _pick_video(path: Path, cut: Cut, keep: Keep, deadline: float) -> tuple["_Picker", Facts]:
    """Guess the length, decode and pick; where length or scenes turn out to be others, decode and pick again. Most
    files need one pass."""
    clips = clip_frames(expected_frames(path, cut.fps), (), cut)
    how = {"fps": cut.fps, "scene_cut": cut.scene_cut, "deadline": deadline}
    for _ in range(2):
        picker = _Picker(clips, cut, keep)
        facts = decode(path, picker.places.__contains__, picker.put, **how)
        better = clip_frames(facts.num_frames, facts.cuts, cut)
        if better == clips:
            return picker, facts
        clips = better
        if not clips:
            return _Picker([], cut, keep), facts
    raise VideoError(f"{path}: gives other frames each time; replace it")


class _Picker:
    """Gathers the frames of `clips`, given by their numbers, each frame for all the clips that it is part of. A clip
    whose last frame has come is looked at and let go of: as many are in memory as overlap in the video.

    The first and the last frame are kept once more, whole and small, to know twins by: what is cropped is not quite the
    same in a mirror.
    """

    def __init__(self, clips: list[list[int]], cut: Cut, keep: Keep):
        self.clips, self.cut, self.keep = clips, cut, keep
        self.places, self.ends = defaultdict(list), []
        for clip, numbers in enumerate(clips):
            for place, number in enumerate(numbers):
                self.places[number].append((clip, place))
        self.marks = [clips[0][0], max(clips[-1])] if clips else []
        self.open, self.left = {}, [cut.num_frames] * len(clips)
        self.starts, self.motions, self.digests, self.stills = [], [], [], []

    def put(self, number: int, picture: Picture) -> None:
        frame = picture(self.cut.size, self.cut.crop)
        for clip, place in self.places[number]:
            if clip not in self.open:
                self.open[clip] = np.empty(self.cut.shape, np.uint8)
            self.open[clip][place] = frame
            self.left[clip] -= 1
            if not self.left[clip]:
                self._finish(self.clips[clip][0], self.open.pop(clip))
        self.ends += [picture(THUMBNAIL, False)] * self.marks.count(number)

    def _finish(self, start: int, clip: np.ndarray) -> None:
        moved = float(np.float32(motion(clip)))  # as exact as the store keeps it
        if moved < self.cut.min_motion:
            self.stills.append(moved)
            return
        self.keep(len(self.starts), clip)
        self.starts.append(start)
        self.motions.append(moved)
        self.digests.append(hashlib.sha256(clip.data).hexdigest())


def clip_frames(num_frames: int, cuts: tuple[int, ...], cut: Cut) -> list[list[int]]:
    """The numbers of the frames of each clip; of a video that is too short, one clip or none, as `cut.short` says."""
    steps = range(0, cut.span, cut.frame_step)
    if starts := clip_starts(num_frames, cuts, cut):
        return [[start + step for step in steps] for start in starts]
    start, end = _longest(num_frames, cuts)
    fold = SHORT[cut.short]
    return [[start + fold(step, end - start) for step in steps]] if fold and end > start else []


def _longest(num_frames: int, cuts: tuple[int, ...]) -> tuple[int, int]:
    """The first frame of the longest scene, and the one after its last."""
    return max(pairwise((0, *cuts, num_frames)), key=lambda scene: scene[1] - scene[0])


def clip_starts(num_frames: int, cuts: tuple[int, ...], cut: Cut) -> list[int]:
    """First frames of at most `clips_per_video` clips, evenly spread over all at which one fits into a scene."""
    rooms = [
        (start, end - start - cut.span + 1)
        for start, end in pairwise((0, *cuts, num_frames))
        if end - start >= cut.span
    ]
    total = sum(room for _, room in rooms)
    return [_nth(rooms, place) for place in spread(total - 1, cut.clips_per_video)] if total else []


def _nth(rooms: list[tuple[int, int]], place: int) -> int:
    for start, room in rooms:
        if place < room:
            return start + place
        place -= room
    raise IndexError(place)


def spread(last: int, count: int) -> list[int]:
    """At most `count` different whole numbers, evenly spread from 0 to `last`; a single one in the middle."""
    if count == 1:
        return [last // 2]
    return np.unique(np.linspace(0, last, count).round().astype(int)).tolist()
