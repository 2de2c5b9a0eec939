"""Extraction: from a list of videos to a clip store.

Clips that the store already contains are not decoded again, nor those that a stopped run had cut. The store's bytes
depend on neither, nor on the number of processes or machines.
"""

import math
import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np

from hrvgan.clipstore import writer
from hrvgan.clipstore.clips import COLUMNS, Clips, Reader, shard_name
from hrvgan.errors import InputError
from hrvgan.extraction import near_duplicates, splits
from hrvgan.extraction.cut import ClipSpec, Record
from hrvgan.extraction.manifest import Manifest, read_video_rows
from hrvgan.extraction.videos import Video, read_notes, read_videos_csv
from hrvgan.extraction.work_dir import Outcomes, ReadFrames, cut_new, part_key, work_dir, write_errors
from hrvgan.files import atomic_folder, recover
from hrvgan.parallel import ordered_map
from hrvgan.video.decode import filters

SMALL = 2**28  # bytes below which worker processes would take longer to start than the copy takes


def extract(
    raw: str | Path, out: str | Path, *,
    size: int = 64, num_frames: int = 16, frame_step: int = 1, clips_per_video: int = 2, short: str = "drop",
    crop: bool = True, enlarge: bool = False, fps: float = 0.0, scene_cut: float = 10.0, min_motion: float = 0.0,
    val_fraction: float = 0.15, test_fraction: float = 0.2, seed: int = 0,
    num_shards: int = 4, compression: str = "none",
    max_bad_fraction: float = 0.1, time_limit: float = 60.0, workers: int | str = "auto", dask: str = "",
) -> dict[str, int]:  # fmt: skip
    """Cut the videos listed in `raw`/videos.csv into clips, write the store `out`, and return the counts.

    A clip is `num_frames` frames, every `frame_step`-th of its video, `size` pixels wide and high (`crop`: scaled to
    cover the square and cropped, otherwise squashed), at `fps` frames per second (0: each video's own rate). No clip
    crosses a scene cut, which is where ffmpeg's scdet scores `scene_cut` or more (0: no detection). Each video gives
    `clips_per_video` clips at evenly spread starts, fewer if it is too short; if no scene is as long as a clip, `short`
    "loop" or "hold" repeats the longest scene or holds its last frame. Strips of frames are neither resampled nor
    searched for scenes.

    Left out, and listed in `out`/manifest.json: videos that cannot be decoded (within `time_limit` seconds plus one
    per megabyte), are smaller than `size` (without `enlarge`) or have no scene as long as a clip; clips that move
    less than `min_motion` (mean absolute difference of neighbouring frames, in levels of 255); exact copies;
    near-duplicates of held-out videos; and classes that end without clips. `val_fraction`, `test_fraction` and `seed`
    assign the groups that the data set does not (`assign_splits`). `dask` is the address of a scheduler whose workers
    see the same files under the same paths.

    Raises InputError, and leaves `out` unchanged, if more than `max_bad_fraction` of the videos cannot be decoded or
    are in classes without clips, if the disk is full, or if another process is extracting to `out`.
    """
    spec = ClipSpec(size, num_frames, frame_step, clips_per_video, crop, min_motion, fps, scene_cut, short, enlarge)
    # Check now what would otherwise fail after all is decoded.
    splits.check_fractions(val_fraction, test_fraction)
    writer.check_compression(compression)
    videos, out = read_videos_csv(Path(raw) / "videos.csv"), Path(out)
    most_bad = math.floor(max_bad_fraction * len(videos))
    with work_dir(out, spec.recipe()) as folder:
        # Reuse what exists, and cut the other files.
        recover(out)
        old = ExistingStore(out.absolute(), workers, dask)
        outcomes = old.outcomes(spec)
        cut_new(videos, outcomes, spec, folder, most_bad, time_limit, workers=workers, dask=dask)

        # Select videos and assign splits; write new and changed shards, the index and the manifest.
        fractions = {"val_fraction": val_fraction, "test_fraction": test_fraction, "seed": seed}
        kept, manifest = select(videos, outcomes, most_bad, **fractions)
        manifest.notes += read_notes(Path(raw))
        rows, metadata = index(kept, outcomes, spec)
        options = {"num_shards": num_shards, "compression": compression, "workers": workers, "dask": dask}
        with write_errors(out), atomic_folder(out.absolute()) as new:
            write_store(new, rows, metadata, old, recipe=spec.recipe(), **options)
            manifest.write(new)
    return manifest.counts()


class ExistingStore:
    """Store from an earlier extraction: undamaged rows by shard and by video. Empty if `folder` is no store."""

    def __init__(self, folder: Path, workers: int | str, dask: str):
        self.shards, self.videos, self.metadata = defaultdict(list), defaultdict(list), {}
        self.intact = set()  # shards without damaged rows
        try:
            clips = Clips(folder)
        except InputError:
            return
        self.folder, self.metadata = folder, clips.metadata
        for row in clips.index.to_pylist():
            self.shards[row["shard"]].append(row)
        shards, size = list(self.shards.values()), int(np.prod(clips.shape))
        options = {"workers": _workers(len(clips) * size, workers), "dask": dask}
        self.reader = Reader(folder, size)
        checked = ordered_map(self.reader.intact, shards, **options, desc="check", unit="shard")
        for rows, intact in zip(shards, checked, strict=True):
            if len(intact) == len(rows):
                self.intact.add(rows[0]["shard"])
            for number in intact:
                self.videos[rows[number]["video_id"]].append(rows[number])

    def outcomes(self, spec: ClipSpec) -> Outcomes:
        """Records and clips of the videos in the store, if it was extracted by the same recipe."""
        outcomes = {}
        if self.metadata.get("recipe") != spec.recipe():
            return outcomes
        for row in read_video_rows(self.folder):
            clips = self.videos.get(row["video_id"], [])
            # Damaged shards have fewer clips; of copies only one has any.
            undamaged = len(clips) == row["clips"] and row["failure"] not in ("duplicate", "twin")
            if row["source_md5"] and row["lasting"] and undamaged:
                own = [{key: clip[key] for key in ("start_frame", "motion", "digest")} for clip in clips]
                known = {field.name: row[field.name] for field in fields(Record)} | {"clips": own}
                places = ([clip[key] for key in ("shard", "row", "offset")] for clip in clips)
                readers = [partial(self.reader.read, *place) for place in places]
                outcomes[row["source_md5"]] = Record(**known), readers
        return outcomes

    def offsets(self, shard: int, rows: Sequence[dict], metadata: dict) -> list[int] | None:
        """Offsets of the clips in an intact shard that holds just `rows`; None if it has to be written."""
        same_kind = all(self.metadata.get(key) == value for key, value in metadata.items())
        if not (same_kind and shard in self.intact and _keys(self.shards[shard]) == _keys(rows)):
            return None
        return [row["offset"] for row in self.shards[shard]]


def select(
    videos: Sequence[Video], outcomes: Outcomes, most_bad: int, **fractions: float
) -> tuple[list[Video], Manifest]:
    """Videos whose clips form the store, each with its split, and the manifest of all videos."""
    records = [outcomes[part_key(video)][0] for video in videos]
    usable = [number for number, record in enumerate(records) if not record.failure]
    pairs = near_duplicates.find_near_duplicates(
        [records[n].num_frames for n in usable], [records[n].fingerprint for n in usable]
    )
    joined, left_out = near_duplicates.join_near_duplicates([videos[n] for n in usable], pairs)
    apart = left_out.keys()
    pairs = [(joined[one], joined[other]) for one, other in pairs if not apart & {one, other}]
    videos = dict(enumerate(videos)) | dict(zip(usable, joined, strict=True))
    left_out = {usable[n]: reason for n, reason in left_out.items()}
    kept = [number for number in usable if number not in left_out]
    videos |= zip(kept, splits.assign_splits([videos[n] for n in kept], **fractions), strict=True)
    manifest = Manifest(list(videos.values()), records, left_out)
    manifest.check(most_bad)
    manifest.check_rates()
    manifest.check_near_duplicates(pairs)
    return [videos[number] for number in kept], manifest


def index(videos: Sequence[Video], outcomes: Outcomes, spec: ClipSpec) -> tuple[list[tuple[dict, ReadFrames]], dict]:
    """Index row and reader of each clip of `videos`, and the metadata of their store."""
    classes, rows = sorted({video.class_name for video in videos} - {""}), []
    for video in videos:
        record, readers = outcomes[part_key(video)]
        common = {"video_id": video.video_id, "class_name": video.class_name, "source_md5": video.md5,
                  "split": video.split, "group": video.group, "frame_step": spec.frame_step,
                  "fps": record.fps}  # fmt: skip
        for clip, read in zip(record.clips, readers, strict=True):
            row = {"clip_id": f"{video.video_id}@{clip['start_frame']:06d}", **common, **clip}
            rows.append((writer.with_label(row, classes), read))
    chain = ",".join("=".join(item) for item in filters(spec.size, spec.crop))
    return rows, writer.store_metadata(spec.shape, classes, chain)


def _keys(rows: Sequence[dict]) -> list:
    names = [name for name in COLUMNS if name != "motion"] + ["digest"]  # motion follows from the frames
    return [[row[name] for name in names] for row in rows]


def _workers(num_bytes: int, workers: int | str) -> int | str:
    return 1 if num_bytes < SMALL else workers


def write_store(
    folder: Path,
    rows: Sequence[tuple[dict, ReadFrames]],
    metadata: dict,
    old: ExistingStore,
    *,
    num_shards: int,
    compression: str,
    workers: int | str,
    dask: str,
    **more: object,
) -> None:
    """Write shards and index of `rows` into the empty `folder`.

    `metadata` is that of `store_metadata`; `more` goes into the index's metadata beside it.
    """
    shards, located = defaultdict(list), []
    for row, read in rows:
        number = writer.shard_of(row["video_id"], num_shards)
        located.append(row | {"shard": number, "row": len(shards[number])})
        shards[number].append((row, read))
    offsets, jobs = {}, {}
    for number, content in sorted(shards.items()):
        wanted = [row for row, _ in content]
        offsets[number] = old.offsets(number, wanted, metadata | {"compression": compression})
        if offsets[number] is None:
            jobs[number] = content
        else:
            _link(old.folder / shard_name(number), folder / shard_name(number))
    num_bytes = int(np.prod(metadata["shape"])) * sum(map(len, jobs.values()))
    write = partial(write_shard, folder=folder, metadata=metadata, compression=compression)
    options = {"workers": _workers(num_bytes, workers), "dask": dask if jobs else ""}
    written = ordered_map(write, list(jobs.items()), **options, desc="write", unit="shard")
    offsets |= zip(jobs, written, strict=True)
    writer.write_index(folder, metadata, located, offsets, **more, compression=compression)


def write_shard(job: tuple, folder: Path, metadata: dict, compression: str) -> list[int]:
    """Write one shard, given by its number and its rows and readers; return the offset of each clip."""
    number, content = job
    with writer.Shard(folder, number, metadata, compression) as shard:
        for row, read in content:
            if shard.add(row, bytes(read()))["digest"] != row["digest"]:
                raise InputError(f"{row['clip_id']}: its frames changed since they were cut; run it again")
    return shard.offsets


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
