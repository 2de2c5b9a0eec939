"""From a list of videos to a clip store: decode, cut, split, and say what was left out and why."""

import functools
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import av
import numpy as np
import PIL

from hrvgan.datasets.splits import assign_splits
from hrvgan.datasets.store import Clip, motion, write_clips
from hrvgan.datasets.videos import SPLITS, Video, read_videos_csv
from hrvgan.errors import InputError
from hrvgan.parallel import ordered_map
from hrvgan.video import FrameCountWarning, VideoError, filters, read_frames


def extract(
    raw: str | Path,
    out: str | Path,
    *,
    size: int = 64,
    num_frames: int = 16,
    frame_step: int = 1,
    clips_per_video: int = 2,
    crop: bool = True,
    min_motion: float = 0.0,
    val_fraction: float = 0.15,
    test_fraction: float = 0.2,
    seed: int = 0,
    num_shards: int = 4,
    max_bad_fraction: float = 0.1,
    workers: int | str = "auto",
) -> dict[str, int]:
    """Cut the videos that `raw`/videos.csv lists into clips, write the store `out`, return what was counted.

    A clip is `num_frames` frames, every `frame_step`-th of its video, `size` pixels wide and high (`crop`:
    covering the square and cropped, else squashed). Of each video `clips_per_video` are taken at evenly
    spread starts, fewer if it is so short. Videos that cannot be decoded or are shorter than a clip, and
    clips that move less than `min_motion` (mean absolute difference of neighbouring frames, in levels of
    255), are left out and listed in `out`/manifest.json. `val_fraction`, `test_fraction` and `seed` decide
    over the groups for which the data set does not (`assign_splits`). The store's bytes do not depend on
    `workers`. Raises InputError, and leaves `out` as it was, if more than `max_bad_fraction` of the videos
    cannot be decoded or a class is left without clips.
    """
    cut = Cut(size, num_frames, frame_step, clips_per_video, crop, min_motion)
    videos = read_videos_csv(Path(raw) / "videos.csv")
    videos = assign_splits(videos, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed)
    results = ordered_map(
        functools.partial(read_clips, cut=cut), videos, workers=workers, desc="extract", unit="video"
    )
    report = Report(max_bad=math.floor(max_bad_fraction * len(videos)))
    write_clips(
        out,
        report.collect(results),
        shape=(num_frames, size, size, 3),
        classes=sorted({video.class_name for video in videos} - {""}),
        num_shards=num_shards,
        filters=",".join("=".join(item) for item in filters(size, crop)),
        extras={"manifest.json": report.manifest},  # Filled by the time it is written.
    )
    return report.counts


@dataclass(frozen=True)
class Cut:
    """How clips are cut from a video, in the words of `extract`."""

    size: int
    num_frames: int
    frame_step: int
    clips_per_video: int
    crop: bool
    min_motion: float

    def __post_init__(self):
        if min(astuple(self)[:4]) < 1:
            raise InputError(f"extract: {self}: size, num_frames, frame_step and clips_per_video start at 1")

    @property
    def span(self) -> int:
        """How many frames of a video a clip reaches over."""
        return (self.num_frames - 1) * self.frame_step + 1


@dataclass(frozen=True)
class Result:
    """What came of one video."""

    video: Video
    clips: tuple[Clip, ...] = ()
    failure: str = ""  # unreadable, short or static
    cause: str = ""
    warning: str = ""


def read_clips(video: Video, cut: Cut) -> Result:
    """Decode one video and cut it. What is wrong with the file is part of the result, not an error."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FrameCountWarning)
            frames, fps = read_frames(video.path, cut.size, cut.crop)
    except VideoError as error:
        return Result(video, failure="unreadable", cause=str(error))
    if len(frames) < cut.span:
        cause = (
            f"{video.path}: {len(frames)} frames, need {cut.span}; lower extract.num_frames or drop the video"
        )
        return Result(video, failure="short", cause=cause)
    starts = spread(len(frames) - cut.span, cut.clips_per_video)
    clips = [
        _clip(video, start, frames[start : start + cut.span : cut.frame_step], fps, cut) for start in starts
    ]
    moving = tuple(clip for clip in clips if clip.motion >= cut.min_motion)
    if not moving:
        most = max(clip.motion for clip in clips)
        cause = (
            f"{video.path}: moves by {most:.2f} levels at most; lower extract.min_motion or drop the video"
        )
        return Result(video, failure="static", cause=cause)
    return Result(video, moving, warning=str(caught[0].message) if caught else "")


def spread(last: int, count: int) -> list[int]:
    """At most `count` different whole numbers, evenly spread from 0 to `last`; a single one in the middle."""
    if count == 1:
        return [last // 2]
    return np.unique(np.linspace(0, last, count).round().astype(int)).tolist()


def _clip(video: Video, start: int, frames: np.ndarray, fps: float, cut: Cut) -> Clip:
    name = f"{video.video_id}@{start:06d}"
    return Clip(name, video.video_id, video.class_name, video.md5, video.split, video.group,
                start, cut.frame_step, fps, motion(frames), np.ascontiguousarray(frames))  # fmt: skip


class Report:
    """Counts and causes, gathered while the clips pass through to the store."""

    def __init__(self, max_bad: int):
        self.max_bad = max_bad
        self.counts = dict.fromkeys(
            ("videos", "clips", *SPLITS, "dropped", "unreadable", "short", "static"), 0
        )
        versions = {"av": av.__version__, "pillow": PIL.__version__}
        versions |= {
            name: ".".join(map(str, version)) for name, version in sorted(av.library_versions.items())
        }
        self.manifest = {"dropped": [], "warnings": [], "versions": versions}

    def collect(self, results: Iterable[Result]) -> Iterator[Clip]:
        """Pass on the clips. Raises InputError once too many videos are bad, or a class ends empty."""
        left = Counter()
        for result in results:
            self.counts["videos"] += 1
            left[result.video.class_name] += len(result.clips)
            if result.failure:
                self._drop(result)
            if result.warning:
                self.manifest["warnings"].append(result.warning)
            for clip in result.clips:
                self.counts["clips"] += 1
                self.counts[clip.split] += 1
                yield clip
        for name in sorted(name for name, count in left.items() if not count):
            title = f"class {name!r} has no clips" if name else "no clips"
            raise InputError(f"{title}: {self._causes(class_name=name)}")

    def _drop(self, result: Result) -> None:
        self.counts["dropped"] += 1
        self.counts[result.failure] += 1
        about = {"video_id": result.video.video_id, "class_name": result.video.class_name}
        self.manifest["dropped"].append(about | {"failure": result.failure, "cause": result.cause})
        if self.counts["unreadable"] > self.max_bad:
            allowed = f"more unreadable videos than extract.max_bad_fraction allows ({self.max_bad})"
            raise InputError(f"{allowed}: {self._causes(failure='unreadable')}")

    def _causes(self, **only: str) -> str:
        """The first causes among the dropped videos that match `only`."""
        causes = [item["cause"] for item in self.manifest["dropped"] if only.items() <= item.items()]
        more = [f"and {len(causes) - 3} more"] if len(causes) > 3 else []
        return "; ".join(causes[:3] + more)
