"""Cutting of all videos in processes, and the work directory that keeps their clips until the store is written.

It lies beside the store, belongs to one process at a time, and lets a stopped extraction continue.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hrvgan.errors import InputError, SlowVideoError, VideoError, first_few
from hrvgan.extraction.cut import ClipSpec, Record, cut_video
from hrvgan.extraction.videos import Video, num_bytes
from hrvgan.files import locked
from hrvgan.parallel import ordered_map

ReadFrames = Callable[[], bytes | np.ndarray]  # returns the frames of a clip, flat uint8
Outcomes = dict[str, tuple[Record, list[ReadFrames]]]  # part_key of a video -> record, reader of each clip


@contextlib.contextmanager
def work_dir(store: Path, recipe: dict) -> Iterator[Path]:
    """Yield the folder of clips cut by `recipe`, with those of an earlier run that was stopped.

    Clips of other recipes are deleted at once, the folder when the block succeeds. Raises InputError if another
    process is extracting to the same store, or the folder cannot be written.
    """
    base = store.absolute().with_name(f".{store.name}.parts")
    with contextlib.ExitStack() as stack:
        with write_errors(base):
            stack.enter_context(locked(base / "lock", f"extraction to {store}"))
            name = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
            for other in base.iterdir():
                if other.is_dir() and other.name != name:
                    shutil.rmtree(other)
            (base / name).mkdir(exist_ok=True)
        yield base / name
        with write_errors(base):
            shutil.rmtree(base)


@contextlib.contextmanager
def write_errors(folder: Path) -> Iterator[None]:
    """Convert OSError, for example of a full disk, into an InputError with the remedy."""
    try:
        yield
    except OSError as error:
        cause = error.strerror or error
        raise InputError(
            f"{folder}: cannot be written ({cause}); make room and run it again, it goes on from here"
        ) from error


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
    copies = Counter(map(part_key, videos))

    def add(key: str, record: Record) -> None:
        outcomes[key] = record, [partial(read_clip, folder, key, spec, n) for n in range(len(record.clips))]

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
        limit=partial(most_seconds, time_limit=time_limit),
        desc="extract",
        unit="video",
        **options,
    )
    bad = sum(copies[key] for key, (record, _) in outcomes.items() if record.failure == "unreadable")
    for video, record in zip(missing, records, strict=True):
        add(part_key(video), record)
        bad += copies[part_key(video)] * (record.failure == "unreadable")
        if bad > most_bad:
            check_bad(videos, outcomes, most_bad)


def _lost(video: Video, cause: str) -> Record:
    cause = f"{cause} while decoding; replace it, or raise extract.time_limit"
    return Record(failure="unreadable", cause=cause, lasting=False)


def check_bad(videos: Sequence[Video], outcomes: Outcomes, most: int) -> None:
    bad = [(video, outcomes[part_key(video)][0]) for video in videos if part_key(video) in outcomes]
    causes = [f"{video.path}: {record.cause}" for video, record in bad if record.failure == "unreadable"]
    if len(causes) > most:
        raise InputError(
            f"more unreadable videos than the {most} of {len(videos)} that extract.max_bad_fraction allows: "
            f"{first_few(causes)}"
        )


def cut_file(video: Video, spec: ClipSpec, folder: Path, time_limit: float) -> Record:
    """Cut one file into `folder`/<key>.frames, its clips one after the other, and <key>.json, the record.

    A defect of the file is part of the record; InputError is raised only if `folder` cannot be written.
    """
    # A unique name: on a cluster two machines may cut the same file.
    temporary = folder / f"{part_key(video)}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        with write_errors(folder), open(temporary, "wb") as file:
            record = _cut(video, spec, partial(_write_clip, file, folder), time_limit)
            file.truncate(len(record.clips) * math.prod(spec.shape))
        with write_errors(folder):
            temporary.replace(folder / f"{part_key(video)}.frames")
            temporary.write_text(json.dumps({**asdict(record), "fingerprint": record.fingerprint.hex()}))
            temporary.replace(folder / f"{part_key(video)}.json")
    finally:
        temporary.unlink(missing_ok=True)
    return record


def _write_clip(file: BinaryIO, folder: Path, number: int, clip: np.ndarray) -> None:
    with write_errors(folder):  # `_cut` would take an OSError for one of the video.
        file.seek(number * clip.nbytes)
        file.write(clip.data)
        file.flush()


def _cut(video: Video, spec: ClipSpec, on_clip, time_limit: float) -> Record:
    try:
        return cut_video(video.path, spec, on_clip, time.monotonic() + seconds(video, time_limit))
    except VideoError as error:
        cause, lasting = str(error), not isinstance(error, SlowVideoError)
    except InputError:
        raise
    except Exception as error:  # Whatever a broken file does to a decoder, the others go on.
        cause, lasting = f"{type(error).__name__}: {error}", False
    # Without the path, which differs between machines.
    cause = cause.removeprefix(f"{video.path}: ")
    return Record(failure="unreadable", cause=cause, lasting=lasting)


def read_clip(folder: Path, key: str, spec: ClipSpec, number: int) -> bytes:
    """Frames of one of the clips that `cut_file` has written."""
    size = math.prod(spec.shape)
    with open(folder / f"{key}.frames", "rb") as file:
        file.seek(number * size)
        return file.read(size)


def part_key(video: Video) -> str:
    return video.md5 or "id-" + hashlib.sha256(video.video_id.encode()).hexdigest()


def seconds(video: Video, time_limit: float) -> float:
    """Time allowed for decoding a file: `time_limit`, and a second for each megabyte."""
    try:
        return time_limit + num_bytes(video.path) / 1e6
    except OSError:
        return time_limit


def most_seconds(video: Video, time_limit: float) -> float:
    """When its process is ended: a decoder that still responds has stopped by itself before."""
    return 10 + 1.5 * seconds(video, time_limit)


def load_record(video: Video, spec: ClipSpec, folder: Path) -> Record | None:
    """Record of a file that an earlier, stopped run has cut; None if it did not, or not completely."""
    path = folder / f"{part_key(video)}.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        record = Record(**fields | {"fingerprint": bytes.fromhex(fields["fingerprint"])})
        with open(path.with_suffix(".frames"), "rb") as file:
            clips = iter(partial(file.read, math.prod(spec.shape)), b"")
            digests = [hashlib.sha256(clip).hexdigest() for clip in clips]
    except (OSError, ValueError, TypeError):  # TypeError: a record of another version has other fields.
        return None
    intact = digests == [clip["digest"] for clip in record.clips]
    return record if intact and record.lasting and video.md5 else None
