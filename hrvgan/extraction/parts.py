"""The clips of one file on their way into a store: plain bytes, and a record beside them."""

import hashlib
import json
import math
import os
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from hrvgan.datasets.videos import Video
from hrvgan.datasets.workplace import writing
from hrvgan.errors import SlowVideoError, VideoError
from hrvgan.extraction.cutting import Cut, Record, cut_video, failed


def cut_file(video: Video, cut: Cut, parts: Path, time_limit: float) -> Record:
    """Cut one file; `parts`/<key>.frames then holds its clips one after the other, <key>.json the record.

    What is wrong with the file is part of the record; InputError is raised only when `parts` cannot be written.
    """
    try:
        clips, record = cut_video(video.path, cut, time.monotonic() + seconds(video, time_limit))
    except SlowVideoError as error:
        return failed("unreadable", _cause(video, error), lasting=False)
    except Exception as error:  # Whatever a broken file does to a decoder, the others go on.
        cause = _cause(video, error if isinstance(error, VideoError) else f"{type(error).__name__}: {error}")
        clips, record = (
            np.empty(0, np.uint8),
            failed("unreadable", cause, lasting=isinstance(error, VideoError)),
        )
    with writing(parts):
        for suffix, content in ((".frames", clips.data), (".json", _to_json(record))):
            # A name of its own: on a cluster two machines may have come to the same file.
            temporary = parts / f"{part_key(video)}.{os.getpid()}.{os.urandom(4).hex()}"
            try:
                temporary.write_bytes(content)
                temporary.replace(parts / f"{part_key(video)}{suffix}")
            finally:
                temporary.unlink(missing_ok=True)
    return record


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
        frames = path.with_suffix(".frames").read_bytes()
    except (OSError, ValueError):
        return None
    values["fingerprint"] = bytes.fromhex(values["fingerprint"])
    record = Record(
        **{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    )
    size = math.prod(cut.shape)
    found = tuple(hashlib.sha256(frames[at : at + size]).hexdigest() for at in range(0, len(frames), size))
    return record if found == record.digests and record.lasting and video.md5 else None


def _to_json(record: Record) -> bytes:
    return json.dumps({**asdict(record), "fingerprint": record.fingerprint.hex()}).encode()
