"""Incremental write of a store: unchanged shards are linked, other clips copied from the old store or the work dir."""

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from hrvgan.clipstore.clips import COLUMNS, Clips, Reader, shard_name
from hrvgan.clipstore.writer import Shard, shard_of, write_index
from hrvgan.errors import InputError
from hrvgan.parallel import ordered_map

SMALL = 2**28  # bytes below which worker processes would take longer to start than the copy takes
ReadFrames = Callable[[], bytes | np.ndarray]  # returns the frames of a clip, flat uint8


class ExistingStore:
    """Store from an earlier extraction: undamaged rows by shard and by video. Empty if `folder` is no store."""

    def __init__(self, folder: Path, workers: int | str):
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
        options = {"workers": _workers(len(clips) * size, workers), "desc": "check", "unit": "shard"}
        self.reader = Reader(folder, size)
        checked = ordered_map(self.reader.intact, shards, **options)
        for rows, intact in zip(shards, checked, strict=True):
            if len(intact) == len(rows):
                self.intact.add(rows[0]["shard"])
            for number in intact:
                self.videos[rows[number]["video_id"]].append(rows[number])

    def reader_of(self, row: dict) -> ReadFrames:
        return partial(self.reader.read, row["shard"], row["row"], row["offset"])

    def offsets(self, shard: int, rows: Sequence[dict], metadata: dict) -> list[int] | None:
        """Offsets of the clips in an intact shard that holds just `rows`; None if it has to be written."""
        same_kind = all(self.metadata.get(key) == value for key, value in metadata.items())
        if not (same_kind and shard in self.intact and _keys(self.shards[shard]) == _keys(rows)):
            return None
        return [row["offset"] for row in self.shards[shard]]


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
    **more: object,
) -> None:
    """Write shards and index of `rows` into the empty `folder`.

    `metadata` is that of `store_metadata`; `more` goes into the index's metadata beside it.
    """
    shards, order = defaultdict(list), []
    for row, read in rows:
        number = shard_of(row["video_id"], num_shards)
        order.append((number, len(shards[number]), row))
        shards[number].append((row, read))
    offsets, jobs = {}, {}
    for number, content in sorted(shards.items()):
        path = folder / shard_name(number)
        wanted = [row for row, _ in content]
        offsets[number] = old.offsets(number, wanted, metadata | {"compression": compression})
        if offsets[number] is None:
            jobs[number] = path, content
        else:
            _link(old.folder / path.name, path)
    size = int(np.prod(metadata["shape"]))
    num_bytes = size * sum(len(content) for _, content in jobs.values())
    write = partial(write_shard, metadata=metadata, compression=compression)
    options = {"workers": _workers(num_bytes, workers), "desc": "write", "unit": "shard"}
    offsets |= zip(jobs, ordered_map(write, list(jobs.values()), **options), strict=True)
    located = [row | {"shard": shard, "row": n, "offset": offsets[shard][n]} for shard, n, row in order]
    write_index(folder, metadata, located, **more, compression=compression)


def write_shard(job: tuple, metadata: dict, compression: str) -> list[int]:
    """Write one shard; return the offset of each clip."""
    path, content = job
    with Shard(path, metadata, compression) as shard:
        for row, read in content:
            if shard.add(row, bytes(read()))["digest"] != row["digest"]:
                raise InputError(f"{row['clip_id']}: its frames changed since they were cut; run it again")
    return shard.offsets


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
