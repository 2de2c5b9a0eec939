"""From a list of videos to a clip store: decode what is new, cut, split, and say what was left out and why."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from hrvgan.clipstore.writer import check_compression, label_of, labels_of, store_metadata
from hrvgan.datasets.videos import Video, read_videos_csv
from hrvgan.errors import InputError
from hrvgan.extraction.cut import Cut, Record, failed
from hrvgan.extraction.incremental_write import Place, Stored, renew
from hrvgan.extraction.manifest import Account, first_few, read_account
from hrvgan.extraction.near_duplicates import find_twins, join_twins
from hrvgan.extraction.parts import cut_file, load_record, part_key, seconds
from hrvgan.extraction.splits import assign_splits, check_fractions
from hrvgan.extraction.work_dir import workplace, writing
from hrvgan.files import atomic_folder, recover
from hrvgan.parallel import ordered_map
from hrvgan.video.convert import filters

Found = dict[str, tuple[Record, list[Place]]]  # what came of a file, by `part_key`, and where each clip lies


def extract(
    raw: str | Path,
    out: str | Path,
    *,
    size: int = 64,
    num_frames: int = 16,
    frame_step: int = 1,
    clips_per_video: int = 2,
    short: str = "drop",
    crop: bool = True,
    enlarge: bool = False,
    fps: float = 0.0,
    scene_cut: float = 10.0,
    min_motion: float = 0.0,
    val_fraction: float = 0.15,
    test_fraction: float = 0.2,
    seed: int = 0,
    num_shards: int = 4,
    compression: str = "none",
    max_bad_fraction: float = 0.1,
    time_limit: float = 60.0,
    workers: int | str = "auto",
    dask: str = "",
) -> dict[str, int]:
    """Cut the videos that `raw`/videos.csv lists into clips, write the store `out`, return what was counted.

    A clip is `num_frames` frames, every `frame_step`-th of its video, `size` pixels wide and high (`crop`:
    covering the square and cropped, else squashed), at `fps` frames a second (0: each video's own). None crosses a
    scene change, which is where ffmpeg's scdet scores `scene_cut` or more (0: not looked for). Of each video
    `clips_per_video` are taken at evenly spread starts, fewer if it is so short; of one in which no scene is as long as
    a clip, with `short` "loop" or "hold" the longest scene, over and over or with its last frame held. Strips of frames
    are taken as they are: neither resampled nor searched for scenes.

    Left out, and listed in `out`/manifest.json: videos that cannot be decoded (within `time_limit` seconds, and one
    more a megabyte), are smaller than `size` (without `enlarge`) or have no scene as long as a clip; clips that move
    less than `min_motion` (mean absolute difference of neighbouring frames, in levels of 255; the manifest has a
    histogram); exact copies; and twins of videos that are held out from them (`datasets/twins.py`). `val_fraction`,
    `test_fraction` and `seed` decide over the groups for which the data set does not (`assign_splits`).

    What `out` holds already is not decoded again, nor what an earlier run had cut when it was stopped. The store's
    bytes depend on neither, nor on `workers` or `dask`, the address of a scheduler whose workers see the same files
    under the same paths.

    A class that ends without clips is left out, with a warning. Raises InputError, and leaves `out` as it was, if more
    than `max_bad_fraction` of the videos cannot be decoded, or are in classes without clips, if the disk is full, or
    another process is extracting to `out`.
    """
    cut = Cut(size, num_frames, frame_step, clips_per_video, crop, min_motion, fps, scene_cut, short, enlarge)
    # What is wrong here would else be found when all is decoded.
    check_fractions(val_fraction, test_fraction)
    check_compression(compression)
    videos, out = read_videos_csv(Path(raw) / "videos.csv"), Path(out)
    most_bad = math.floor(max_bad_fraction * len(videos))
    with workplace(out, cut.recipe()) as parts:
        # Find what is known of each file, and cut the others.
        recover(out)
        old = Stored(out, workers)
        found = in_store(out, old, cut)
        cut_new(videos, found, cut, parts, most_bad, time_limit, workers=workers, dask=dask)

        # Decide which are in, and in which split; write shards that are new or changed, the index, the account.
        fractions = {"val_fraction": val_fraction, "test_fraction": test_fraction, "seed": seed}
        kept, account = decide(videos, found, most_bad, **fractions)
        how = {"num_shards": num_shards, "compression": compression, "workers": workers}
        with writing(out), atomic_folder(out) as folder:
            write_store(folder, kept, found, cut, old, **how)
            account.write(folder)
    return account.counts()


def decide(
    videos: Sequence[Video], found: Found, most_bad: int, **fractions: float
) -> tuple[list[Video], Account]:
    """The videos whose clips make the store, each with its split, and the account of all."""
    records = [found[part_key(video)][0] for video in videos]
    videos, left_out = without_twins(videos, records)
    kept = [number for number, record in enumerate(records) if not record.failure and number not in left_out]
    for number, video in zip(kept, assign_splits([videos[n] for n in kept], **fractions), strict=True):
        videos[number] = video
    account = Account(videos, records, left_out)
    account.check(most_bad)
    return [videos[number] for number in kept], account


def write_store(folder: Path, videos: Sequence[Video], found: Found, cut: Cut, old: Stored, **how) -> None:
    """Write shards and index of the clips of `videos` into the empty `folder`, as `renew` does."""
    classes = sorted({video.class_name for video in videos} - {""})
    labels = labels_of(classes)
    rows = [row for video in videos for row in clip_rows(video, *found[part_key(video)], cut, labels)]
    chain = ",".join("=".join(item) for item in filters(cut.size, cut.crop))
    renew(folder, rows, store_metadata(cut.shape, classes, chain), old, recipe=cut.recipe(), **how)


def in_store(out: Path, old: Stored, cut: Cut) -> Found:
    """What the store `old` in `out`, if it was cut in the same way, knows of files."""
    found = {}
    if old.metadata.get("recipe") != cut.recipe():
        return found
    for row in read_account(out):
        clips = old.videos.get(row["video_id"], [])
        # Damaged shards have fewer clips; of copies only one has any.
        if (
            row["source_md5"]
            and row["lasting"]
            and len(clips) == row["clips"]
            and row["failure"] not in ("duplicate", "twin")
        ):
            columns = {name: tuple(clip[key] for clip in clips) for name, key in
                       (("starts", "start_frame"), ("motions", "motion"), ("digests", "digest"))}  # fmt: skip
            same = ("num_frames", "fps", "fingerprint", "failure", "cause", "warning")
            record = Record(**{key: row[key] for key in same}, stills=tuple(row["stills"]), **columns)
            found[row["source_md5"]] = record, [old.place(clip) for clip in clips]
    return found


def cut_new(
    videos: Sequence[Video], found: Found, cut: Cut, parts: Path, most_bad: int, time_limit: float, **how
) -> None:
    """Add to `found` what is not in it: from `parts` what was cut before, and the rest from the files, in processes.

    Raises InputError once more than `most_bad` of the videos cannot be decoded.
    """
    first = {part_key(video): video for video in reversed(videos)}  # Of copies, one is enough.
    for key, video in first.items():
        if key not in found and (record := load_record(video, cut, parts)):
            found[key] = record, part_places(key, record, cut, parts)
    todo = [video for key, video in first.items() if key not in found]
    todo.reverse()
    work = partial(cut_file, cut=cut, parts=parts, time_limit=time_limit)
    # Paths that mean the same in every process, also on another machine.
    jobs = [replace(video, path=video.path.absolute()) for video in todo]
    records = ordered_map(
        work, jobs, lost=_lost, limit=partial(_patience, time_limit), desc="extract", unit="video", **how
    )
    check_bad(videos, found, most_bad)
    for video, record in zip(todo, records, strict=True):
        found[part_key(video)] = record, part_places(part_key(video), record, cut, parts)
        if record.failure == "unreadable":
            check_bad(videos, found, most_bad)


def _lost(video: Video, cause: str) -> Record:
    return failed(
        "unreadable", f"{cause} while decoding; replace it, or raise extract.time_limit", lasting=False
    )


def _patience(time_limit: float, video: Video) -> float:
    """Seconds after which a process is given up: a decoder that still answers has ended by itself before."""
    return 10 + 1.5 * seconds(video, time_limit)


def check_bad(videos: Sequence[Video], found: Found, most: int) -> None:
    bad = [(video, found[part_key(video)][0]) for video in videos if part_key(video) in found]
    causes = [f"{video.path}: {record.cause}" for video, record in bad if record.failure == "unreadable"]
    if len(causes) > most:
        raise InputError(
            f"more unreadable videos than extract.max_bad_fraction allows ({most}): {first_few(causes)}"
        )


def part_places(key: str, record: Record, cut: Cut, parts: Path) -> list[Place]:
    return [
        Place(parts / f"{key}.frames", number * math.prod(cut.shape)) for number in range(len(record.starts))
    ]


def without_twins(
    videos: Sequence[Video], records: Sequence[Record]
) -> tuple[list[Video], dict[int, tuple[str, str]]]:
    """Videos with the groups of twins joined, and those to leave out: number -> failure and cause."""
    usable = [number for number, record in enumerate(records) if not record.failure]
    pairs = find_twins([records[n].num_frames for n in usable], [records[n].fingerprint for n in usable])
    joined, left_out = join_twins([videos[n] for n in usable], pairs)
    videos = list(videos)
    for number, video in zip(usable, joined, strict=True):
        videos[number] = video
    return videos, {usable[n]: found for n, found in left_out.items()}


def clip_rows(
    video: Video, record: Record, places: list[Place], cut: Cut, labels: dict[str, int]
) -> list[tuple[dict, Place]]:
    """A row of the store for each clip of a video, and where its frames lie."""
    rows = []
    for start, motion, digest, place in zip(
        record.starts, record.motions, record.digests, places, strict=True
    ):
        row = {"clip_id": f"{video.video_id}@{start:06d}", "video_id": video.video_id, "class_name": video.class_name,
               "source_md5": video.md5, "split": video.split, "group": video.group, "start_frame": start,
               "frame_step": cut.frame_step, "fps": record.fps, "motion": motion, "digest": digest}  # fmt: skip
        rows.append((row | {"label": label_of(row, labels)}, place))
    return rows
