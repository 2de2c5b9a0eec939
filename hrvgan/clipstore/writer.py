"""How clips lie on disk: Parquet shards with one clip a row group, and an index without frames.

A clip's shard follows from a hash of its video, so that another video changes one shard and not all. Frames
are raw bytes, by default uncompressed, in the last column: the index says at which byte of the file they begin, and
random reads come within reach of a memory map of plain arrays.
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

from hrvgan.clipstore.format import COLUMNS, FORMAT, INDEX, PLACES, shard_name
from hrvgan.datasets.videos import SPLITS
from hrvgan.errors import InputError
from hrvgan.files import atomic_folder

COMPRESSIONS = ("none", "zstd")


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
    compression: str = "none",
) -> None:
    """Write a store of uint8 clips of `shape` (T, H, W, 3), one at a time, whole or not at all.

    `filters` says how the pixels were made, `compression` (none or zstd) how they are kept. Raises InputError if
    there are no clips, or a class of `classes` has none.
    """
    metadata = store_metadata(shape, classes, filters)
    labels, shards, rows = labels_of(classes), {}, []
    with atomic_folder(folder) as temporary, ExitStack() as files:
        for clip in clips:
            if clip.frames.dtype != np.uint8 or clip.frames.shape != tuple(shape):
                raise ValueError(f"{clip.clip_id}: {clip.frames.dtype} {clip.frames.shape}, not as declared")
            row = {name: getattr(clip, name) for name in COLUMNS if name != "label"}
            row["label"] = label_of(row, labels)
            number = stable_hash(clip.video_id) % num_shards
            if number not in shards:
                path = temporary / shard_name(number)
                shards[number] = files.enter_context(Shard(path, metadata, compression))
            rows.append((number, shards[number].add(row, clip.frames.tobytes())))
        files.close()
        check_classes(folder, classes, [row for _, row in rows])
        places = {number: shard.offsets for number, shard in shards.items()}
        table = [row | {"shard": number, "offset": places[number][row["row"]]} for number, row in rows]
        write_index(temporary, metadata, table)


def store_metadata(shape: Sequence[int], classes: Sequence[str], filters: str) -> dict:
    return {"format": FORMAT, "layout": "THWC", "dtype": "uint8", "shape": list(shape),
            "classes": list(classes), "filters": filters}  # fmt: skip


def labels_of(classes: Sequence[str]) -> dict[str, int]:
    """Class name -> label; a clip without a class has label 0, so that no reader needs to ask."""
    return {name: label for label, name in enumerate(classes)} or {"": 0}


def label_of(row: dict, labels: dict[str, int]) -> int:
    """The label of a row; InputError if its split or class is none of the store's."""
    for name, known in (("split", SPLITS), ("class_name", labels)):
        if row[name] not in known:
            message = f"{row['clip_id']}: unknown {name} {row[name]!r}; known: {', '.join(known)}"
            raise InputError(message)
    return labels[row["class_name"]]


def check_classes(folder: str | Path, classes: Sequence[str], rows: Sequence[dict]) -> None:
    if not rows:
        raise InputError(f"{folder}: no clips to write; give the data set more or longer videos")
    if empty := set(classes) - {row["class_name"] for row in rows}:
        raise InputError(f"{folder}: class {min(empty)!r} has no clips; give it videos or remove it")


def check_compression(name: str) -> None:
    if name not in COMPRESSIONS:
        raise InputError(f"compression {name!r} is unknown; known: {', '.join(COMPRESSIONS)}")


class Shard:
    """One Parquet file, written a clip at a time."""

    def __init__(self, path: Path, metadata: dict, compression: str = "none"):
        check_compression(compression)
        self.path, self.size = path, int(np.prod(metadata["shape"]))
        self.schema = _schema(COLUMNS | {"frames": pa.binary(self.size)}, metadata)
        options = {"use_dictionary": False, "write_statistics": list(COLUMNS), "compression": compression}
        self.file = pq.ParquetWriter(path, self.schema, **options)
        self.count, self.plain = 0, compression == "none"

    def add(self, row: dict, frames: bytes) -> dict:
        """Append a clip; returns its row with what the index says beside, but for the offset."""
        row = {name: row[name] for name in COLUMNS}
        self.file.write_table(pa.Table.from_pylist([row | {"frames": frames}], self.schema))
        self.count += 1
        return row | {"row": self.count - 1, "digest": hashlib.sha256(frames).hexdigest()}

    def __enter__(self) -> "Shard":
        return self

    def __exit__(self, *error) -> None:
        self.file.close()
        if self.plain and error[0] is None:
            self.offsets = frame_offsets(self.path, self.size)
        else:
            self.offsets = [-1] * self.count


def frame_offsets(path: Path, size: int) -> list[int]:
    """At which byte of a shard the frames of each clip begin: a required, plain page is a header and its values."""
    about = pq.read_metadata(path)
    pages = [about.row_group(row).column(about.num_columns - 1) for row in range(about.num_row_groups)]
    return [page.data_page_offset + page.total_compressed_size - size for page in pages]


def write_index(folder: Path, metadata: dict, rows: Sequence[dict], **more: object) -> None:
    """Write the index of `rows`, in their order; `more` goes into its metadata, but not into the digest, which is of
    what is stored: format, clips, splits and labels."""
    digest = hashlib.sha256(json.dumps(metadata).encode())
    for row in rows:
        digest.update(json.dumps([row["clip_id"], row["split"], row["label"], row["digest"]]).encode())
    schema = _schema(COLUMNS | PLACES, metadata | {"digest": digest.hexdigest()} | more)
    table = pa.Table.from_pylist(rows, schema)
    pq.write_table(table, folder / INDEX, compression="none", use_dictionary=False)


def _schema(columns: dict[str, pa.DataType], metadata: dict) -> pa.Schema:
    fields = [pa.field(name, kind, nullable=False) for name, kind in columns.items()]
    return pa.schema(fields, {"hrvgan": json.dumps(metadata)})


def stable_hash(text: str) -> int:
    """A hash that is the same in every process and on every machine, which Python's own is not."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
