"""Work directory of an extraction: clips of each cut video, kept until the store is written.

It lies beside the store, belongs to one process at a time, and lets a stopped extraction continue.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hrvgan.errors import InputError, SlowVideoError, VideoError
from hrvgan.extraction.cut import ClipSpec, Record, cut_video
from hrvgan.extraction.videos import Video, num_bytes
from hrvgan.files import locked


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


def cut_file(video: Video, spec: ClipSpec, folder: Path, time_limit: float) -> Record:
    """Cut one file into `folder`/<key>.frames, its clips one after the other, and <key>.json, the record.

    A defect of the file is part of the record; InputError is raised only if `folder` cannot be written.
    """
    # A unique name: on a cluster two machines may cut the same file.
    temporary = folder / f"{part_key(video)}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        with write_errors(folder), open(temporary, "wb") as file:
            record = _cut(video, spec, partial(_write_clip, file, folder), time_limit)
            file.truncate(len(record.starts) * math.prod(spec.shape))
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


def load_record(video: Video, spec: ClipSpec, folder: Path) -> Record | None:
    """Record of a file that an earlier, stopped run has cut; None if it did not, or not completely."""
    path = folder / f"{part_key(video)}.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        with open(path.with_suffix(".frames"), "rb") as file:
            clips = iter(partial(file.read, math.prod(spec.shape)), b"")
            digests = tuple(hashlib.sha256(clip).hexdigest() for clip in clips)
    except (OSError, ValueError):
        return None
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    record = Record(**fields | {"fingerprint": bytes.fromhex(fields["fingerprint"])})
    return record if digests == record.digests and record.lasting and video.md5 else None
