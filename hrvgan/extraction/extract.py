"""Extraction: from a list of videos to a clip store.

Clips that the store already contains are not decoded again, nor those that a stopped run had cut. The store's bytes
depend on neither, nor on the number of processes or machines.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from hrvgan.clipstore.writer import check_compression, store_metadata, with_label
from hrvgan.errors import InputError
from hrvgan.extraction.cut import ClipSpec, Record
from hrvgan.extraction.incremental_write import ExistingStore, ReadFrames, write_store
from hrvgan.extraction.manifest import Manifest, first_few, read_video_rows
from hrvgan.extraction.near_duplicates import find_near_duplicates, join_near_duplicates
from hrvgan.extraction.splits import assign_splits, check_fractions
from hrvgan.extraction.videos import Video, read_notes, read_videos_csv
from hrvgan.extraction.work_dir import (
    cut_file,
    load_record,
    part_key,
    read_clip,
    seconds,
    work_dir,
    write_errors,
)
from hrvgan.files import atomic_folder, recover
from hrvgan.parallel import ordered_map
from hrvgan.video.convert import filters

Outcomes = dict[str, tuple[Record, list[ReadFrames]]]  # part_key of a video -> record, reader of each clip


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
    spec = ClipSpec(
        size, num_frames, frame_step, clips_per_video, crop, min_motion, fps, scene_cut, short, enlarge
    )
    # Check now what would otherwise fail after all is decoded.
    check_fractions(val_fraction, test_fraction)
    check_compression(compression)
    videos, out = read_videos_csv(Path(raw) / "videos.csv"), Path(out)
    most_bad = math.floor(max_bad_fraction * len(videos))
    with work_dir(out, spec.recipe()) as folder:
        # Reuse what exists, and cut the other files.
        recover(out)
        old = ExistingStore(out, workers)
        outcomes = reusable(out, old, spec)
        cut_new(videos, outcomes, spec, folder, most_bad, time_limit, workers=workers, dask=dask)

        # Select videos and assign splits; write new and changed shards, the index and the manifest.
        fractions = {"val_fraction": val_fraction, "test_fraction": test_fraction, "seed": seed}
        kept, manifest = select(videos, outcomes, most_bad, **fractions)
        manifest.notes = read_notes(Path(raw))
        rows, metadata = index(kept, outcomes, spec)
        options = {"num_shards": num_shards, "compression": compression, "workers": workers}
        with write_errors(out), atomic_folder(out) as new:
            write_store(new, rows, metadata, old, recipe=spec.recipe(), **options)
            manifest.write(new)
    return manifest.counts()


def reusable(out: Path, old: ExistingStore, spec: ClipSpec) -> Outcomes:
    """Records and clips of the store `old` in `out`, if it was extracted by the same recipe."""
    outcomes = {}
    if old.metadata.get("recipe") != spec.recipe():
        return outcomes
    for row in read_video_rows(out):
        clips = old.videos.get(row["video_id"], [])
        # Damaged shards have fewer clips; of copies only one has any.
        undamaged = len(clips) == row["clips"] and row["failure"] not in ("duplicate", "twin")
        if row["source_md5"] and row["lasting"] and undamaged:
            columns = {name: tuple(clip[key] for clip in clips) for name, key in
                       (("starts", "start_frame"), ("motions", "motion"), ("digests", "digest"))}  # fmt: skip
            same = ("num_frames", "fps", "fingerprint", "failure", "cause", "warning")
            record = Record(**{key: row[key] for key in same}, stills=tuple(row["stills"]), **columns)
            outcomes[row["source_md5"]] = record, [old.reader_of(clip) for clip in clips]
    return outcomes


def cut_new(
    videos: Sequence[Video],
    outcomes: Outcomes,
    spec: ClipSpec,
    folder: Path,
    most_bad: int,
    time_limit: float,
    **options,
) -> None:
    """Add the videos that are not in `outcomes`: those cut in `folder` by a stopped run, then the rest, in processes.

    Raises InputError once more than `most_bad` of the videos cannot be decoded.
    """
    first = {part_key(video): video for video in reversed(videos)}  # Copies are cut once.

    def add(key: str, record: Record) -> None:
        outcomes[key] = record, [partial(read_clip, folder, key, spec, n) for n in range(len(record.starts))]

    for key, video in first.items():
        if key not in outcomes and (record := load_record(video, spec, folder)):
            add(key, record)
    missing = [video for key, video in first.items() if key not in outcomes][::-1]
    check_bad(videos, outcomes, most_bad)
    records = ordered_map(
        partial(cut_file, spec=spec, folder=folder, time_limit=time_limit),
        # Absolute paths mean the same in every process, also on another machine.
        [replace(video, path=video.path.absolute()) for video in missing],
        lost=_lost,
        # A decoder that still responds has stopped by itself before.
        limit=lambda video: 10 + 1.5 * seconds(video, time_limit),
        desc="extract",
        unit="video",
        **options,
    )
    for video, record in zip(missing, records, strict=True):
        add(part_key(video), record)
        if record.failure == "unreadable":
            check_bad(videos, outcomes, most_bad)


def _lost(video: Video, cause: str) -> Record:
    cause = f"{cause} while decoding; replace it, or raise extract.time_limit"
    return Record(failure="unreadable", cause=cause, lasting=False)


def check_bad(videos: Sequence[Video], outcomes: Outcomes, most: int) -> None:
    bad = [(video, outcomes[part_key(video)][0]) for video in videos if part_key(video) in outcomes]
    causes = [f"{video.path}: {record.cause}" for video, record in bad if record.failure == "unreadable"]
    if len(causes) > most:
        raise InputError(
            f"more unreadable videos than extract.max_bad_fraction allows ({most}): {first_few(causes)}"
        )


def select(
    videos: Sequence[Video], outcomes: Outcomes, most_bad: int, **fractions: float
) -> tuple[list[Video], Manifest]:
    """Videos whose clips form the store, each with its split, and the manifest of all videos."""
    videos, records = list(videos), [outcomes[part_key(video)][0] for video in videos]
    usable = [number for number, record in enumerate(records) if not record.failure]
    pairs = find_near_duplicates(
        [records[n].num_frames for n in usable], [records[n].fingerprint for n in usable]
    )
    joined, left_out = join_near_duplicates([videos[n] for n in usable], pairs)
    for number, video in zip(usable, joined, strict=True):
        videos[number] = video
    left_out = {usable[n]: reason for n, reason in left_out.items()}
    kept = [number for number in usable if number not in left_out]
    for number, video in zip(kept, assign_splits([videos[n] for n in kept], **fractions), strict=True):
        videos[number] = video
    manifest = Manifest(videos, records, left_out)
    manifest.check(most_bad)
    manifest.check_rates()
    return [videos[number] for number in kept], manifest


def index(
    videos: Sequence[Video], outcomes: Outcomes, spec: ClipSpec
) -> tuple[list[tuple[dict, ReadFrames]], dict]:
    """Index row and reader of each clip of `videos`, and the metadata of their store."""
    classes, rows = sorted({video.class_name for video in videos} - {""}), []
    for video in videos:
        record, readers = outcomes[part_key(video)]
        common = {"video_id": video.video_id, "class_name": video.class_name, "source_md5": video.md5,
                  "split": video.split, "group": video.group, "frame_step": spec.frame_step,
                  "fps": record.fps}  # fmt: skip
        columns = record.starts, record.motions, record.digests, readers
        for start, motion, digest, read in zip(*columns, strict=True):
            own = {"start_frame": start, "motion": motion, "digest": digest}
            row = {"clip_id": f"{video.video_id}@{start:06d}", **common, **own}
            rows.append((with_label(row, classes), read))
    chain = ",".join("=".join(item) for item in filters(spec.size, spec.crop))
    return rows, store_metadata(spec.shape, classes, chain)
