"""Write a store anew out of what is there already: shards in which nothing changed are kept as they are, clips are
copied from the old store or from where they were just cut to."""

import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from hrvgan.clipstore.clips import Clips
from hrvgan.clipstore.format import COLUMNS, shard_name
from hrvgan.clipstore.reader import Reader
from hrvgan.clipstore.writer import Shard, stable_hash, write_index
from hrvgan.errors import InputError
from hrvgan.parallel import ordered_map

SMALL = 2**28  # bytes that are faster copied or checked here than by processes that start first


@dataclass(frozen=True)
class Place:
    """Where the frames of a clip lie: plain in a file from byte `offset` on, or compressed in a row of a shard."""

    path: Path
    offset: int
    shard: int = -1
    row: int = -1

    def read(self, size: int) -> bytes:
        if self.offset < 0:
            return Reader(self.path.parent, size).read(self.shard, self.row, -1).tobytes()
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(size)


class Stored:
    """A store that is there already: its rows by shard and by video, without those that are damaged."""

    def __init__(self, folder: Path, workers: int | str):
        self.shards, self.metadata = defaultdict(list), {}
        self.whole = set()  # shards in which nothing is damaged
        try:
            clips = Clips(folder)
        except InputError:
            return
        self.folder, self.metadata, self.shape = folder, clips.about, clips.shape
        for row in clips.index.to_pylist():
            self.shards[row["shard"]].append(row)
        shards = list(self.shards.values())
        check = Reader(folder, int(np.prod(clips.shape))).sound
        few = len(clips) * int(np.prod(clips.shape)) < SMALL
        checked = ordered_map(check, shards, workers=1 if few else workers, desc="check", unit="shard")
        self.videos = defaultdict(list)
        for rows, sound in zip(shards, checked, strict=True):
            if len(sound) == len(rows):
                self.whole.add(rows[0]["shard"])
            for row in (rows[number] for number in sound):
                self.videos[row["video_id"]].append(row)

    def place(self, row: dict) -> Place:
        return Place(self.folder / shard_name(row["shard"]), row["offset"], row["shard"], row["row"])


def renew(
    folder: Path,
    rows: Sequence[tuple[dict, Place]],
    metadata: dict,
    old: Stored,
    *,
    num_shards: int,
    compression: str,
    workers: int | str,
    **about: object,
) -> int:
    """Write shards and index of `rows` into the empty `folder`; returns how many shards were written, not kept.

    `metadata` as of `store_metadata`; `about` goes into the index beside it.
    """
    about |= {"compression": compression}
    alike = all(
        old.metadata.get(key) == value for key, value in (metadata | {"compression": compression}).items()
    )
    shards = defaultdict(list)
    order = []
    for row, place in rows:
        number = stable_hash(row["video_id"]) % num_shards
        order.append((number, len(shards[number]), row))
        shards[number].append((row, place))
    offsets, jobs, numbers = {}, [], []
    for number, content in sorted(shards.items()):
        path = folder / shard_name(number)
        if alike and number in old.whole and _same(old.shards[number], content):
            _link(old.folder / path.name, path)
            offsets[number] = [row["offset"] for row in old.shards[number]]
        else:
            jobs.append((path, content))
            numbers.append(number)
    few = sum(len(content) for _, content in jobs) * int(np.prod(metadata["shape"])) < SMALL
    write = partial(write_shard, metadata=metadata, compression=compression)
    written = ordered_map(write, jobs, workers=1 if few else workers, desc="write", unit="shard")
    offsets |= zip(numbers, written, strict=True)
    placed = [row | {"shard": shard, "row": n, "offset": offsets[shard][n]} for shard, n, row in order]
    write_index(folder, metadata, placed, **about)
    return len(jobs)


def write_shard(job: tuple, metadata: dict, compression: str) -> list[int]:
    """Write one shard; returns the offset of each clip."""
    path, content = job
    size = int(np.prod(metadata["shape"]))
    with Shard(path, metadata, compression) as shard:
        for row, place in content:
            found = shard.add(row, place.read(size))["digest"]
            if found != row["digest"]:
                raise InputError(f"{place.path}: changed since it was written; run it again")
    return shard.offsets


def _same(old: Sequence[dict], new: Sequence[tuple[dict, Place]]) -> bool:
    keys = [name for name in COLUMNS if name != "motion"] + ["digest"]  # motion follows from the frames
    return [[row[key] for key in keys] for row in old] == [[row[key] for key in keys] for row, _ in new]


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
