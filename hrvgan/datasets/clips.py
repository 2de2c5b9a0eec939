"""Clips out of a store: any clip by number, any batch by step."""

import copy
import functools
import json
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hrvgan.datasets.format import COLUMNS, FORMAT, INDEX, shard_name
from hrvgan.errors import InputError


class Clips:
    """The clips of a store, or of one of its splits. Cheap to open, to copy and to send to another process.

    `shape` is (T, H, W, 3), `classes` the names in the order of the labels ([] if there are none), `fps` the
    rate of the clips in frames a second (the most common one, where videos differ), `index` a pyarrow Table
    of everything but frames, `labels` int64 (N,), `digest` the sha256 of what the whole store holds. Raises
    InputError if `folder` is no store.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        table = _read_index(self.folder)
        about = json.loads(table.schema.metadata[b"hrvgan"])
        self.shape: tuple[int, ...] = tuple(about["shape"])
        self.classes: list[str] = about["classes"]
        self.digest: str = about["digest"]
        self.filters: str = about["filters"]
        self.fps = _most_common(table["fps"].to_numpy() / table["frame_step"].to_numpy())
        self._set_rows(table)
        self._reader = _Reader(self.folder)

    def _set_rows(self, table: pa.Table) -> None:
        self.index = table
        self.labels = table["label"].to_numpy().astype(np.int64)
        self._places = np.stack([table["shard"].to_numpy(), table["row"].to_numpy()], axis=1)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def split(self, name: str) -> "Clips":
        """The clips of split `name`, maybe none, in their order; files opened already are shared."""
        view = copy.copy(self)
        view._set_rows(self.index.filter(pa.compute.equal(self.index["split"], name)))
        return view

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> np.ndarray:
        """Clip `index`, uint8 (T, H, W, 3)."""
        return self.read([index])[0]

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Clips `indices`, uint8 (N, T, H, W, 3)."""
        clips = np.empty((len(indices), *self.shape), np.uint8)
        for clip, (shard, row) in zip(clips, self._places[list(indices)].tolist(), strict=True):
            clip[:] = np.frombuffer(self._reader.read(shard, row), np.uint8).reshape(self.shape)
        return clips


class _Reader:
    """Shards of one folder, opened when first read, once a thread: a ParquetFile knows no locks."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._local = threading.local()

    def __reduce__(self):
        return _Reader, (self.folder,)

    def read(self, shard: int, row: int) -> pa.Buffer:
        files = self._local.__dict__
        path = self.folder / shard_name(shard)
        try:
            if shard not in files:
                files[shard] = pq.ParquetFile(path, memory_map=True)
            # The values of a fixed-size column lie in the last buffer; a row group holds one.
            return files[shard].read_row_group(row, columns=["frames"])["frames"].chunk(0).buffers()[1]
        except (OSError, pa.ArrowException, KeyError) as error:
            raise InputError(f"{path}: cannot be read ({error}); extract the data set again") from error


def _read_index(folder: Path) -> pa.Table:
    try:
        table = pq.read_table(folder / INDEX)
        about = json.loads(table.schema.metadata[b"hrvgan"])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder}: not a clip store ({error}); run the extract stage first") from error
    if about.get("format") != FORMAT or not set(COLUMNS) <= set(table.column_names):
        raise InputError(
            f"{folder}: a clip store of format {about.get('format')}, not {FORMAT}; extract it again"
        )
    for shard in set(table["shard"].to_pylist()):
        if not (folder / shard_name(shard)).is_file():
            raise InputError(f"{folder / shard_name(shard)}: missing; extract the data set again")
    return table


def _most_common(values: np.ndarray) -> float:
    rates, counts = np.unique(values, return_counts=True)
    return float(rates[counts.argmax()])


class BatchStream:
    """An endless shuffled stream of batches in which batch `step` is a pure function of (seed, step).

    Position p = 0, 1, 2 ... of the stream is a clip; each run of len(clips) positions is a permutation of all
    clips. Rank r of `world_size` takes the r-th part of every `world_size * batch_size` positions, so that
    ranks never share one. With `num_frames` below the clips' own, every visit draws where in the clip to
    start; `flip` mirrors half of the visits.
    """

    def __init__(
        self,
        clips: Clips,
        *,
        batch_size: int,
        seed: int = 0,
        num_frames: int | None = None,
        flip: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ):
        stored = clips.shape[0]
        if not len(clips):
            raise InputError(f"{clips.folder}: no clips in this split; extract more or change the splits")
        if num_frames and num_frames > stored:
            raise InputError(
                f"{clips.folder}: clips of {stored} frames, need {num_frames}; extract longer ones"
            )
        self.clips, self.batch_size, self.seed = clips, batch_size, seed
        self.num_frames, self.flip = num_frames or stored, flip
        self.rank, self.world_size = rank, world_size

    def indices(self, step: int) -> np.ndarray:
        """Which clips batch `step` holds, int64 (N,)."""
        first = (step * self.world_size + self.rank) * self.batch_size
        epochs, places = np.divmod(np.arange(first, first + self.batch_size), len(self.clips))
        orders = [_permutation(self.seed, epoch, len(self.clips)) for epoch in epochs.tolist()]
        return np.array([order[place] for order, place in zip(orders, places, strict=True)])

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Clips uint8 (N, T, H, W, 3) and labels int64 (N,) of batch `step` = 0, 1, 2 ..."""
        indices = self.indices(step)
        draw = np.random.default_rng([self.seed, step, self.rank])
        clips = self.clips.read(indices)
        if self.num_frames < clips.shape[1]:
            starts = draw.integers(clips.shape[1] - self.num_frames + 1, size=len(clips))
            cuts = (slice(start, start + self.num_frames) for start in starts)
            clips = np.stack([clip[cut] for clip, cut in zip(clips, cuts, strict=True)])
        if self.flip:
            mirrored = draw.random(len(clips)) < 0.5
            clips[mirrored] = clips[mirrored, :, :, ::-1]
        return clips, self.clips.labels[indices]


@functools.lru_cache(maxsize=8)  # A batch lies in one epoch or in two, in more where the set is tiny.
def _permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(length)
