"""The clips of one file on their way into a store: plain bytes, and a record beside them."""

import hashlib
import json
import math
import os
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hrvgan.datasets.videos import Video
from hrvgan.errors import InputError, SlowVideoError, VideoError
from hrvgan.extraction.cut import Cut, Keep, Record, cut_video, failed
from hrvgan.extraction.work_dir import writing


def cut_file(video: Video, cut: Cut, parts: Path, time_limit: float) -> Record:
    """Cut one file; `parts`/<key>.frames then holds its clips one after the other, <key>.json the record.

    What is wrong with the file is part of the record; InputError is raised only when `parts` cannot be written.
    """
    # A name of its own: on a cluster two machines may have come to the same file.
    temporary = parts / f"{part_key(video)}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        with writing(parts), open(temporary, "wb") as file:
            record = _cut(video, cut, partial(_write, file, parts), time_limit)
            file.truncate(len(record.starts) * math.prod(cut.shape))
        with writing(parts):
            temporary.replace(parts / f"{part_key(video)}.frames")
            temporary.write_bytes(_to_json(record))
            temporary.replace(parts / f"{part_key(video)}.json")
    finally:
        temporary.unlink(missing_ok=True)
    return record


def _write(file: BinaryIO, parts: Path, number: int, clip: np.ndarray) -> None:
    with writing(parts):  # An OSError would pass for one of the video.
        file.seek(number * clip.nbytes)
        file.write(clip.data)
        file.flush()


def _cut(video: Video, cut: Cut, keep: Keep, time_limit: float) -> Record:
    try:
        return cut_video(video.path, cut, keep, time.monotonic() + seconds(video, time_limit))
    except VideoError as error:
        lasting = not isinstance(error, SlowVideoError)
        return failed("unreadable", _cause(video, error), lasting=lasting)
    except InputError:
        raise
    except Exception as error:  # Whatever a broken file does to a decoder, the others go on.
        return failed("unreadable", _cause(video, f"{type(error).__name__}: {error}"), lasting=False)


def _cause(video: Video, error: object) -> str:
    """Without the path, which is another on each machine."""
    return str(error).removeprefix(f"{video.path}: ")


def part_key(video: Video) -> str:
    return video.md5 or "id-" + hashlib.sha256(video.video_id.encode()).hexdigest()


def seconds(video: Video, time_limit: float) -> float:
    """How long a file may take: `time_limit`, and a second for each megabyte."""
    try:
        return time_limit + video.path.stat().st_size / 1e6
    except OSError:
        return time_limit


def load_record(video: Video, cut: Cut, parts: Path) -> Record | None:
    """The record of a file that an earlier run, killed since, has cut; None if it did not, or not wholly."""
    path = parts / f"{part_key(video)}.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        with open(path.with_suffix(".frames"), "rb") as file:
            clips = iter(partial(file.read, math.prod(cut.shape)), b"")
            found = tuple(hashlib.sha256(clip).hexdigest() for clip in clips)
    except (OSError, ValueError):
        return None
    values["fingerprint"] = bytes.fromhex(values["fingerprint"])
    record = Record(
        **{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    )
    return record if found == record.digests and record.lasting and video.md5 else None


def _to_json(record: Record) -> bytes:
    return json.dumps({**asdict(record), "fingerprint": record.fingerprint.hex()}).encode()
