"""Store format, and random access to the clips of a store."""

import contextlib
import copy
import hashlib
import json
import mmap
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hrvgan.errors import InputError

INDEX = "index.parquet"
FORMAT = "hrvgan-clips-2"
SPLITS = ("train", "val", "test")
SAME_RATE = 0.02  # Every file of a phone has a rate of its own, 29.91 to 30.05 frames a second.
COLUMNS = {
    "clip_id": pa.string(),
    "video_id": pa.string(),
    "class_name": pa.string(),
    "source_md5": pa.string(),
    "split": pa.string(),
    "group": pa.string(),
    "label": pa.int16(),
    "start_frame": pa.int32(),
    "frame_step": pa.int32(),
    "fps": pa.float64(),
    "motion": pa.float32(),
}
# Further columns of the index: the row group of the clip in its shard, the first byte of its frames in that file (-1 if
# they are compressed), and their sha256.
LOCATION = {"shard": pa.int16(), "row": pa.int32(), "offset": pa.int64(), "digest": pa.string()}


def shard_name(shard: int) -> str:
    return f"shard-{shard:03d}.parquet"


def common_rate(rates: np.ndarray) -> float:
    """Most common of `rates`, where rates within SAME_RATE are one: the median of the largest such set."""
    values, counts = np.unique(rates, return_counts=True)
    first = np.searchsorted(values, values * (1 - SAME_RATE))
    end = np.searchsorted(values, values * (1 + SAME_RATE), side="right")
    totals = np.concatenate([[0], counts.cumsum()])
    best = np.lexsort((counts, totals[end] - totals[first]))[-1]
    members = np.repeat(values[first[best] : end[best]], counts[first[best] : end[best]])
    return float(members[len(members) // 2])


class Clips:
    """Clips of a store or of one of its splits. Cheap to open, to copy and to send to another process.

    `shape` is (T, H, W, 3), `classes` the names in the order of the labels ([] if there are none), `fps` the frames
    per second of the clips (where videos differ, `common_rate`), `crop` true if frames were cropped to squares
    and not squashed, `index` a pyarrow Table of everything but frames, `labels` int64 (N,), `digest` the sha256 of the
    content of the whole store, `metadata` that of the index. Raises InputError if `folder` is not a store.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        table, metadata = _read_index(self.folder)
        self.metadata: dict = metadata
        self.shape: tuple[int, ...] = tuple(metadata["shape"])
        self.classes: list[str] = metadata["classes"]
        self.digest: str = metadata["digest"]
        self.filters: str = metadata["filters"]
        self.crop = not self.filters or "crop=" in self.filters
        self.fps = common_rate(table["fps"].to_numpy() / table["frame_step"].to_numpy())
        self._set_rows(table)
        self._reader = Reader(self.folder, int(np.prod(self.shape)))

    def _set_rows(self, table: pa.Table) -> None:
        self.index = table
        self.labels = table["label"].to_numpy().astype(np.int64)
        # A list of tuples: indexing it is faster than indexing arrays.
        columns = (table[name].to_pylist() for name in ("shard", "row", "offset"))
        self._locations = list(zip(*columns, strict=True))

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def split(self, name: str) -> "Clips":
        """Clips of split `name`, possibly none, in their order; open files are shared."""
        view = copy.copy(self)
        view._set_rows(self.index.filter(pa.compute.equal(self.index["split"], name)))
        return view

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> np.ndarray:
        """Clip `index`, uint8 (T, H, W, 3): a view of the mapped file, not to be written to."""
        return self._reader.read(*self._locations[index]).reshape(self.shape)

    def damaged(self) -> list[str]:
        """Ids of the clips whose frames differ from those that were written, or cannot be read."""
        rows = self.index.to_pylist()
        intact = set(self._reader.intact(rows))
        return [row["clip_id"] for number, row in enumerate(rows) if number not in intact]

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Copies of clips `indices`, uint8 (N, T, H, W, 3)."""
        clips = np.empty((len(indices), *self.shape), np.uint8)
        for clip, index in zip(clips, indices, strict=True):
            clip[:] = self[index]
        return clips


def _read_index(folder: Path) -> tuple[pa.Table, dict]:
    try:
        table = pq.read_table(folder / INDEX)
        metadata = json.loads(table.schema.metadata[b"hrvgan"])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder}: not a clip store ({error}); run the extract stage first") from error
    if metadata.get("format") != FORMAT or not {*COLUMNS, *LOCATION} <= set(table.column_names):
        raise InputError(f"{folder}: a clip store of format {metadata.get('format')}, not {FORMAT}; extract it again")
    for shard in set(table["shard"].to_pylist()):
        if not (folder / shard_name(shard)).is_file():
            raise InputError(f"{folder / shard_name(shard)}: missing; extract the data set again")
    return table, metadata


class Reader:
    """Frames of single clips from the shards of a folder, which are opened on first use.

    Uncompressed frames are a view of the mapped file; compressed ones are decoded by one ParquetFile per thread, as
    it is not thread-safe. `size` is that of a clip in bytes.
    """

    def __init__(self, folder: Path, size: int):
        self.folder, self.size = folder, size
        self._maps, self._local = {}, threading.local()

    def __reduce__(self):
        return Reader, (self.folder, self.size)

    def read(self, shard: int, row: int, offset: int) -> np.ndarray:
        """Bytes of a clip, uint8 (T * H * W * 3,), not to be written to. Raises InputError."""
        path = self.folder / shard_name(shard)
        try:
            if offset < 0:
                return self._decode(path, row)
            if shard not in self._maps:
                self._maps[shard] = _map(path)
            clip = self._maps[shard][offset : offset + self.size]
            if len(clip) < self.size:
                raise ValueError("it is too short")
            return clip
        except (OSError, ValueError, pa.ArrowException, KeyError) as error:
            raise InputError(f"{path}: cannot be read ({error}); extract the data set again") from error

    def intact(self, rows: Sequence[dict]) -> list[int]:
        """Positions in `rows`, rows of the index, of the clips whose frames match their digest."""
        numbers = []
        for number, row in enumerate(rows):
            with contextlib.suppress(InputError):
                frames = self.read(row["shard"], row["row"], row["offset"])
                if hashlib.sha256(frames.data).hexdigest() == row["digest"]:
                    numbers.append(number)
        return numbers

    def _decode(self, path: Path, row: int) -> np.ndarray:
        files = self._local.__dict__
        if path not in files:
            files[path] = pq.ParquetFile(path, memory_map=True)
        column = files[path].read_row_group(row, columns=["frames"])["frames"]
        # The values of a fixed-size column are its last buffer; a row group has one value.
        return np.frombuffer(column.chunk(0).buffers()[1], np.uint8)


def _map(path: Path) -> np.ndarray:
    with open(path, "rb") as file:
        content = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    if content[-4:].tobytes() != b"PAR1":
        raise ValueError("its end is missing")
    return content
