"""One video file -> its clips and a record of them."""

import hashlib
import math
from dataclasses import asdict, astuple, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from hrvgan.datasets.store import motion
from hrvgan.datasets.twins import THUMBNAIL, fingerprint
from hrvgan.errors import InputError, VideoError
from hrvgan.video.decoding import Facts, Picture, decode, expected_frames
from hrvgan.video.files import count_warning
from hrvgan.video.strips import STRIP_FPS, is_strip, open_strip, strip_frames

# Raise it when the same file and parameters would give other clips: stores made before are then cut anew.
DECODING = 2


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

    def __post_init__(self):
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
    failure: str = ""  # unreadable, short or static
    cause: str = ""
    warning: str = ""
    lasting: bool = True  # Another try would come to the same.


def failed(failure: str, cause: str, **more) -> Record:
    return Record(failure=failure, cause=cause, **more)


def cut_video(path: Path, cut: Cut, deadline: float = math.inf) -> tuple[np.ndarray, Record]:
    """Clips uint8 (N, T, H, W, 3) of a file that move at least as much as asked, and the record of them."""
    starts, clips, ends, facts = (
        _strip_clips(path, cut) if is_strip(path) else _video_clips(path, cut, deadline)
    )
    if not starts:
        return clips[:0], replace(_short(facts, cut), num_frames=facts.num_frames, fps=facts.fps)
    motions = [float(np.float32(motion(clip))) for clip in clips]  # as exact as the store keeps it
    moving = [number for number, moved in enumerate(motions) if moved >= cut.min_motion]
    record = Record(
        num_frames=facts.num_frames,
        fps=facts.fps,
        starts=tuple(starts[number] for number in moving),
        motions=tuple(motions[number] for number in moving),
        digests=tuple(hashlib.sha256(clips[number].data).hexdigest() for number in moving),
        stills=tuple(moved for moved in motions if moved < cut.min_motion),
        fingerprint=fingerprint(*ends),
    )
    if facts.promised not in (0, facts.decoded):
        record = replace(record, warning=count_warning(path, facts.decoded, facts.promised).split(": ")[-1])
    if not moving:
        cause = f"moves by {max(motions):.2f} levels at most; lower extract.min_motion or drop the video"
        record = replace(record, failure="static", cause=cause)
    return clips if len(moving) == len(clips) else clips[moving], record


def _short(facts: Facts, cut: Cut) -> Record:
    longest = max(end - start for start, end in pairwise((0, *facts.cuts, facts.num_frames)))
    scene = f" in the longest of {len(facts.cuts) + 1} scenes" if facts.cuts else ""
    return failed(
        "short", f"{longest} frames{scene}, need {cut.span}; lower extract.num_frames or drop the video"
    )


def _strip_clips(path: Path, cut: Cut) -> tuple[list[int], np.ndarray, list[np.ndarray], Facts]:
    """A strip says nothing about time and was cut by somebody: it is not resampled, nor searched for scenes."""
    with open_strip(path) as image:
        frames = strip_frames(image, cut.size)
    starts = clip_starts(len(frames), (), cut)
    clips = [frames[start : start + cut.span : cut.frame_step] for start in starts]
    facts = Facts(len(frames), STRIP_FPS, (), len(frames), len(frames))
    ends = [frames[starts[0]], frames[starts[-1] + cut.span - 1]] if starts else []
    return starts, np.ascontiguousarray(clips, np.uint8), ends, facts


def _video_clips(
    path: Path, cut: Cut, deadline: float
) -> tuple[list[int], np.ndarray, list[np.ndarray], Facts]:
    """Guess the length, decode and pick; where length or scenes turn out to be others, decode and pick again.

    Only the clips are ever in memory, and most files need one pass.
    """
    starts = clip_starts(expected_frames(path, cut.fps), (), cut)
    how = {"fps": cut.fps, "scene_cut": cut.scene_cut, "deadline": deadline}
    for _ in range(2):
        picker = _Picker(starts, cut)
        facts = decode(path, picker.places.__contains__, picker.put, **how)
        better = clip_starts(facts.num_frames, facts.cuts, cut)
        if better in (starts, []):
            return better, picker.clips, picker.ends, facts
        starts = better
    raise VideoError(f"{path}: gives other frames each time; replace it")


class _Picker:
    """Gathers the frames of clips, each frame for all the clips that it is part of; and the first and the last of
    them once more, whole and small, to know twins by: what is cropped is not quite the same in a mirror."""

    def __init__(self, starts: list[int], cut: Cut):
        self.clips, self.cut = np.empty((len(starts), *cut.shape), np.uint8), cut
        self.places, self.ends = {}, []
        for clip, start in enumerate(starts):
            for frame in range(cut.num_frames):
                self.places.setdefault(start + frame * cut.frame_step, []).append((clip, frame))
        self.marks = starts[:1] + [start + cut.span - 1 for start in starts[-1:]]

    def put(self, number: int, picture: Picture) -> None:
        frame = picture(self.cut.size, self.cut.crop)
        for place in self.places[number]:
            self.clips[place] = frame
        self.ends += [picture(THUMBNAIL, False)] * self.marks.count(number)


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
