"""Writing of clip stores, from clips in memory or from an .npz file, and their export to .npz.

A store has Parquet shards with one clip per row group, and an index without frames. A clip's shard follows from a hash
of its video, so that another video changes one shard only. Frames are raw bytes in the last column, by default
uncompressed; the index has their byte offset in the file, which makes random reads almost as fast as from a memory map
of plain arrays.
"""

import hashlib
import json
import math
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib import format as npy

from hrvgan.clipstore.clips import COLUMNS, FORMAT, INDEX, LOCATION, SPLITS, Clips, shard_name
from hrvgan.errors import InputError
from hrvgan.files import atomic_folder, atomic_path

COMPRESSIONS = ("none", "zstd")


@dataclass(frozen=True)
class Clip:
    """Clip and its row of a store."""

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
    """Mean absolute difference of neighbouring frames of uint8 (T, H, W, 3), in levels of 255."""
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

    `filters` is the ffmpeg filter string that produced the pixels, `compression` none or zstd. Raises InputError if
    there are no clips, or a class of `classes` has none.
    """
    metadata, shards, rows = store_metadata(shape, classes, filters), {}, []
    with atomic_folder(folder) as temporary, ExitStack() as files:
        for clip in clips:
            if clip.frames.dtype != np.uint8 or clip.frames.shape != tuple(shape):
                raise ValueError(f"{clip.clip_id}: {clip.frames.dtype} {clip.frames.shape}, not as declared")
            row = with_label({name: getattr(clip, name) for name in COLUMNS if name != "label"}, classes)
            number = shard_of(clip.video_id, num_shards)
            if number not in shards:
                shards[number] = files.enter_context(Shard(temporary, number, metadata, compression))
            rows.append(shards[number].add(row, clip.frames.tobytes()))
        files.close()
        _check_classes(folder, classes, rows)
        write_index(temporary, metadata, rows, {number: shard.offsets for number, shard in shards.items()})


def store_metadata(shape: Sequence[int], classes: Sequence[str], filters: str) -> dict:
    return {"format": FORMAT, "layout": "THWC", "dtype": "uint8", "shape": list(shape),
            "classes": list(classes), "filters": filters}  # fmt: skip


def with_label(row: dict, classes: Sequence[str]) -> dict:
    """The row with its label, 0 in a store without classes. Raises InputError for an unknown split or class."""
    classes = list(classes) or [""]
    for name, known in (("split", SPLITS), ("class_name", classes)):
        if row[name] not in known:
            message = f"{row['clip_id']}: unknown {name} {row[name]!r}; known: {', '.join(known)}"
            raise InputError(message)
    return row | {"label": classes.index(row["class_name"])}


def _check_classes(folder: str | Path, classes: Sequence[str], rows: Sequence[dict]) -> None:
    if not rows:
        raise InputError(f"{folder}: no clips to write; give the data set more or longer videos")
    if empty := set(classes) - {row["class_name"] for row in rows}:
        raise InputError(f"{folder}: class {min(empty)!r} has no clips; give it videos or remove it")


def check_compression(name: str) -> None:
    if name not in COMPRESSIONS:
        raise InputError(f"compression {name!r} is unknown; known: {', '.join(COMPRESSIONS)}")


class Shard:
    """One Parquet file, written clip by clip. `offsets` of its clips are known after the `with` block."""

    def __init__(self, folder: Path, number: int, metadata: dict, compression: str):
        check_compression(compression)
        self.path, self.number = folder / shard_name(number), number
        self.size = int(np.prod(metadata["shape"]))
        self.schema = _schema(COLUMNS | {"frames": pa.binary(self.size)}, metadata)
        options = {"use_dictionary": False, "write_statistics": list(COLUMNS), "compression": compression}
        self.file = pq.ParquetWriter(self.path, self.schema, **options)
        self.count, self.compressed = 0, compression != "none"

    def add(self, row: dict, frames: bytes) -> dict:
        """Append a clip; return its row of the index, except for the offset."""
        row = {name: row[name] for name in COLUMNS}
        self.file.write_table(pa.Table.from_pylist([row | {"frames": frames}], self.schema))
        self.count += 1
        digest = hashlib.sha256(frames).hexdigest()
        return row | {"shard": self.number, "row": self.count - 1, "digest": digest}

    def __enter__(self) -> "Shard":
        return self

    def __exit__(self, *error) -> None:
        self.file.close()
        failed = error[0] is not None
        self.offsets = [-1] * self.count if self.compressed or failed else _offsets(self.path, self.size)


def _offsets(path: Path, size: int) -> list[int]:
    """Byte offset of each clip's frames in a shard: a required, uncompressed page is a header and its values."""
    metadata = pq.read_metadata(path)
    last = metadata.num_columns - 1
    pages = [metadata.row_group(row).column(last) for row in range(metadata.num_row_groups)]
    return [page.data_page_offset + page.total_compressed_size - size for page in pages]


def write_index(
    folder: Path, metadata: dict, rows: Sequence[dict], offsets: dict[int, Sequence[int]], **more: object
) -> None:
    """Write the index of `rows`, in their order, with the `offsets` of the clips of each shard.

    `more` goes into its metadata, but not into the digest, which is that of the content: format, clips, splits, labels.
    """
    digest = hashlib.sha256(json.dumps(metadata).encode())
    for row in rows:
        digest.update(json.dumps([row["clip_id"], row["split"], row["label"], row["digest"]]).encode())
    schema = _schema(COLUMNS | LOCATION, metadata | {"digest": digest.hexdigest()} | more)
    located = [row | {"offset": offsets[row["shard"]][row["row"]]} for row in rows]
    table = pa.Table.from_pylist(located, schema)
    pq.write_table(table, folder / INDEX, compression="none", use_dictionary=False)


def _schema(columns: dict[str, pa.DataType], metadata: dict) -> pa.Schema:
    fields = [pa.field(name, kind, nullable=False) for name, kind in columns.items()]
    return pa.schema(fields, {"hrvgan": json.dumps(metadata)})


def shard_of(video_id: str, num_shards: int) -> int:
    return stable_hash(video_id) % num_shards


def stable_hash(text: str) -> int:
    """Hash that is the same in every process and on every machine, unlike Python's own."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def export_npz(clips: Clips, path: str | Path) -> None:
    """Write `frames` uint8 (N, T, H, W, 3), `classes`, `filters` and each column of the index (N,), clip by clip.

    The file is for programs that know numpy only.
    """
    arrays = {"classes": np.array(clips.classes, dtype=np.str_), "filters": np.array(clips.filters)}
    arrays |= {name: _array(clips.index[name]) for name in COLUMNS}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open("frames.npy", "w", force_zip64=True) as file:
            shape = (len(clips), *clips.shape)
            npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for number in range(len(clips)):
                file.write(clips[number].data)
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                npy.write_array(file, array, allow_pickle=False)


def _array(column) -> np.ndarray:
    values = column.to_numpy(zero_copy_only=False)
    return values.astype(np.str_) if values.dtype == object else values


def import_npz(path: str | Path, out: str | Path) -> None:
    """Write the store `out` from a file of `export_npz` or of `hrvgan sample`, clip by clip. Raises InputError if it is
    missing, broken or lacks an array."""
    try:
        with np.load(path) as file:
            if "clip_id" in file:
                arrays = {name: file[name] for name in ("classes", "filters", *COLUMNS)}
            else:
                arrays = columns_of_samples(file["labels"], file["classes"], file["fps"])
        with zipfile.ZipFile(path) as archive, archive.open("frames.npy") as file:
            shape = _frames_shape(file, path)
            options = {"classes": arrays.pop("classes").tolist(), "filters": str(arrays.pop("filters"))}
            write_clips(out, _clips(file, shape, arrays), shape=shape[1:], **options)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not an export of a clip store ({error}); export it again") from error


def columns_of_samples(labels: np.ndarray, classes: np.ndarray, fps: np.ndarray) -> dict[str, np.ndarray]:
    """Columns for clips that are numbered, of no video, and all in split train; and the classes that have clips."""
    names = classes[labels] if classes.size else np.full(len(labels), "")
    ids = np.array([f"{number:05d}" for number in range(len(labels))])
    same = {"source_md5": "", "split": "train", "start_frame": 0, "frame_step": 1, "fps": float(fps)}
    used = [name for name in classes if name in names]
    return {
        "classes": np.array(used, dtype=np.str_), "filters": np.array(""), "clip_id": ids, "video_id": ids,
        "group": ids, "class_name": names, **{name: np.full(len(labels), value) for name, value in same.items()},
    }  # fmt: skip


def _frames_shape(file: BinaryIO, path: str | Path) -> tuple[int, ...]:
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    shape, fortran, dtype = read[npy.read_magic(file)](file)
    if dtype != np.uint8 or len(shape) != 5 or shape[-1] != 3 or fortran:
        raise InputError(f"{path}: frames are {dtype} {shape}, not uint8 (N, T, H, W, 3); export them so")
    return shape


def _clips(file: BinaryIO, shape: tuple[int, ...], columns: dict[str, np.ndarray]) -> Iterator[Clip]:
    # Labels follow from the class names, motion from the frames.
    names = [name for name in COLUMNS if name not in ("label", "motion")]
    rows = zip(*(columns[name].tolist() for name in names), strict=True)
    for _, row in zip(range(shape[0]), rows, strict=True):
        frames = np.frombuffer(file.read(math.prod(shape[1:])), np.uint8).reshape(shape[1:])
        yield Clip(**dict(zip(names, row, strict=True)), motion=motion(frames), frames=frames)
