"""How clips lie on disk: Parquet shards with one clip a row group, and an index without frames.

A clip's shard follows from a hash of its video, so that another video changes one shard and not all. Frames
are raw bytes, uncompressed, in the last column: random reads come within reach of a memory map of plain
arrays.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hrvgan.datasets.format import COLUMNS, FORMAT, INDEX, shard_name
from hrvgan.datasets.videos import SPLITS
from hrvgan.errors import InputError
from hrvgan.files import atomic_folder, write_json


@dataclass(frozen=True)
class Clip:
    """One row of a store."""

    clip_id: str
    video_id: str
    class_name: str  # "" in a store without classes
    source_md5: str
    split: str
    group: str
    start_frame: int
    frame_step: int
    fps: float  # of the video; the clip's own rate is fps / frame_step
    motion: float  # mean absolute difference of neighbouring frames, in levels of 255
    frames: np.ndarray  # uint8 (T, H, W, 3)


def motion(frames: np.ndarray) -> float:
    """Mean absolute difference of neighbouring frames of uint8 (T, H, W, 3), in levels; 0 is a still."""
    if len(frames) < 2:
        return 0.0
    first, second = frames[:-1], frames[1:]
    return float((np.maximum(first, second) - np.minimum(first, second)).mean(dtype=np.float64))


def write_clips(
    folder: str | Path,
    clips: Iterable[Clip],
    *,
    shape: tuple[int, int, int, int],
    classes: Sequence[str],
    num_shards: int = 4,
    filters: str = "",
    extras: dict[str, object] | None = None,
) -> None:
    """Write a store of uint8 clips of `shape` (T, H, W, 3), one at a time, whole or not at all.

    `filters` says how the pixels were made. `extras` (file name -> a JSON value) are written beside the
    shards once all clips are there. Raises InputError if there are no clips, or a class of `classes` has
    none.
    """
    with atomic_folder(folder) as temporary:
        metadata = {"format": FORMAT, "layout": "THWC", "dtype": "uint8", "shape": list(shape),
                    "classes": list(classes), "filters": filters}  # fmt: skip
        writer = _Writer(temporary, metadata, num_shards)
        with ExitStack() as files:
            for clip in clips:
                writer.add(clip, files)
        if not writer.rows:
            raise InputError(f"{folder}: no clips to write; give the data set more or longer videos")
        if empty := writer.labels.keys() - {row["class_name"] for row in writer.rows}:
            raise InputError(f"{folder}: class {min(empty)!r} has no clips; give it videos or remove it")
        writer.write_index()
        for name, value in (extras or {}).items():
            write_json(temporary / name, value)


class _Writer:
    def __init__(self, folder: Path, metadata: dict, num_shards: int):
        self.folder, self.metadata, self.num_shards = folder, metadata, num_shards
        self.labels = {name: label for label, name in enumerate(metadata["classes"])}
        num_bytes = int(np.prod(metadata["shape"]))
        self.schema = _schema(COLUMNS | {"frames": pa.binary(num_bytes)}, metadata)
        self.shards, self.rows = {}, []
        self.digest = hashlib.sha256(json.dumps(metadata).encode())

    def add(self, clip: Clip, files: ExitStack) -> None:
        if clip.frames.dtype != np.uint8 or list(clip.frames.shape) != self.metadata["shape"]:
            raise ValueError(f"{clip.clip_id}: {clip.frames.dtype} {clip.frames.shape}, not as declared")
        _check_known(clip, "split", SPLITS)
        _check_known(clip, "class_name", self.labels or [""])
        # A clip without a class has label 0, so that no reader needs to ask.
        row = {name: getattr(clip, name) for name in COLUMNS if name != "label"}
        row["label"] = self.labels[clip.class_name] if self.labels else 0
        shard = stable_hash(clip.video_id) % self.num_shards
        file, count = self.shards.get(shard) or (self._open(shard, files), 0)
        frames = clip.frames.tobytes()
        file.write_table(pa.Table.from_pylist([row | {"frames": frames}], self.schema))
        self.shards[shard] = file, count + 1
        self.rows.append(row | {"shard": shard, "row": count})
        self.digest.update(json.dumps([clip.clip_id, clip.split, row["label"]]).encode() + frames)

    def _open(self, shard: int, files: ExitStack) -> pq.ParquetWriter:
        path = self.folder / shard_name(shard)
        options = {"compression": "none", "use_dictionary": False, "write_statistics": list(COLUMNS)}
        return files.enter_context(pq.ParquetWriter(path, self.schema, **options))

    def write_index(self) -> None:
        columns = COLUMNS | {"shard": pa.int16(), "row": pa.int32()}
        schema = _schema(columns, self.metadata | {"digest": self.digest.hexdigest()})
        table = pa.Table.from_pylist(self.rows, schema)
        pq.write_table(table, self.folder / INDEX, compression="none", use_dictionary=False)


def _check_known(clip: Clip, name: str, known: Iterable[str]) -> None:
    if getattr(clip, name) not in known:
        raise InputError(f"{clip.clip_id}: unknown {name} {getattr(clip, name)!r}; known: {', '.join(known)}")


def _schema(columns: dict[str, pa.DataType], metadata: dict) -> pa.Schema:
    fields = [pa.field(name, kind, nullable=False) for name, kind in columns.items()]
    return pa.schema(fields, {"hrvgan": json.dumps(metadata)})


def stable_hash(text: str) -> int:
    """A hash that is the same in every process and on every machine, which Python's own is not."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
