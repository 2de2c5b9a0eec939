"""Clips out of a store: any clip by number, any batch by step."""

import copy
import functools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hrvgan.clipstore.format import COLUMNS, FORMAT, INDEX, PLACES, shard_name
from hrvgan.clipstore.reader import Reader
from hrvgan.errors import InputError


class Clips:
    """The clips of a store, or of one of its splits. Cheap to open, to copy and to send to another process.

    `shape` is (T, H, W, 3), `classes` the names in the order of the labels ([] if there are none), `fps` the
    rate of the clips in frames a second (the most common one, where videos differ), `crop` whether their frames
    were cropped to squares and not squashed, `index` a pyarrow Table
    of everything but frames, `labels` int64 (N,), `digest` the sha256 of what the whole store holds. Raises
    InputError if `folder` is no store. `about` is the index's metadata.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        table = _read_index(self.folder)
        self.about = about = json.loads(table.schema.metadata[b"hrvgan"])
        self.shape: tuple[int, ...] = tuple(about["shape"])
        self.classes: list[str] = about["classes"]
        self.digest: str = about["digest"]
        self.filters: str = about["filters"]
        self.crop = not self.filters or "crop=" in self.filters
        self.fps = _most_common(table["fps"].to_numpy() / table["frame_step"].to_numpy())
        self._set_rows(table)
        self._reader = Reader(self.folder, int(np.prod(self.shape)))

    def _set_rows(self, table: pa.Table) -> None:
        self.index = table
        self.labels = table["label"].to_numpy().astype(np.int64)
        # A list: a number of it is had faster than one of an array.
        self._places = list(
            zip(*(table[name].to_pylist() for name in ("shard", "row", "offset")), strict=True)
        )

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
        """Clip `index`, uint8 (T, H, W, 3): a view of the mapped file, not to be written to."""
        return self._reader.read(*self._places[index]).reshape(self.shape)

    def damaged(self) -> list[str]:
        """Names of the clips whose frames are no longer those that were written, or cannot be read."""
        rows = self.index.to_pylist()
        sound = set(self._reader.sound(rows))
        return [row["clip_id"] for number, row in enumerate(rows) if number not in sound]

    def read(self, indices: Sequence[int], out: np.ndarray | None = None) -> np.ndarray:
        """Clips `indices`, uint8 (N, T, H, W, 3); in the array `out`, which may be pinned memory, if one is given: new
        memory costs as much as what is copied into it."""
        clips = np.empty((len(indices), *self.shape), np.uint8) if out is None else out
        for clip, index in zip(clips, indices, strict=True):
            clip[:] = self[index]
        return clips


def _read_index(folder: Path) -> pa.Table:
    try:
        table = pq.read_table(folder / INDEX)
        about = json.loads(table.schema.metadata[b"hrvgan"])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder}: not a clip store ({error}); run the extract stage first") from error
    if about.get("format") != FORMAT or not {*COLUMNS, *PLACES} <= set(table.column_names):
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
    clips. With `class_balanced`, each run of as many positions as there are classes holds every class once, and
    each class goes through permutations of its own clips.

    Rank r of `world_size` takes the r-th part of every `world_size * batch_size` positions: the ranks' batches of a
    step, one after the other, are the batch of that size of one process, drawn and mirrored alike. With
    `num_frames` below the clips' own, every visit draws where in the clip to start; `flip` mirrors half of the
    visits.
    """

    def __init__(
        self,
        clips: Clips,
        *,
        batch_size: int,
        seed: int = 0,
        num_frames: int | None = None,
        flip: bool = False,
        class_balanced: bool = False,
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
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size}")
        self.clips, self.batch_size, self.seed = clips, batch_size, seed
        self.num_frames, self.flip = num_frames or stored, flip
        self.rank, self.world_size = rank, world_size
        self._at = self._balanced if class_balanced else self._shuffled
        self._members = [np.flatnonzero(clips.labels == label) for label in np.unique(clips.labels)]

    def indices(self, step: int) -> np.ndarray:
        """Which clips batch `step` holds, int64 (N,)."""
        first = (step * self.world_size + self.rank) * self.batch_size
        return self._at(np.arange(first, first + self.batch_size))

    def _shuffled(self, positions: np.ndarray) -> np.ndarray:
        epochs, places = np.divmod(positions, len(self.clips))
        return _pick((self.seed,), epochs, places, len(self.clips))

    def _balanced(self, positions: np.ndarray) -> np.ndarray:
        rounds, places = np.divmod(positions, len(self._members))
        chosen = _pick((self.seed, 1), rounds, places, len(self._members))
        return np.array([self._visit(label, visit) for label, visit in zip(chosen, rounds, strict=True)])

    def _visit(self, label: int, visit: int) -> int:
        """The clip that a class gives at its `visit`-th turn, one a round."""
        epoch, place = divmod(int(visit), len(self._members[label]))
        order = _of_class((self.seed, 2, int(label)), epoch, len(self._members[label]))
        return self._members[label][order[place]]

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Clips uint8 (N, T, H, W, 3) and labels int64 (N,) of batch `step` = 0, 1, 2 ..."""
        indices = self.indices(step)
        # Drawn for all ranks, so that their number changes nothing.
        draw = np.random.default_rng([self.seed, step, 0])
        everyone = self.world_size * self.batch_size
        mine = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        clips = self.clips.read(indices)
        if self.num_frames < clips.shape[1]:
            starts = draw.integers(clips.shape[1] - self.num_frames + 1, size=everyone)[mine]
            cuts = (slice(start, start + self.num_frames) for start in starts)
            clips = np.stack([clip[cut] for clip, cut in zip(clips, cuts, strict=True)])
        if self.flip:
            mirrored = draw.random(everyone)[mine] < 0.5
            clips[mirrored] = clips[mirrored, :, :, ::-1]
        return clips, self.clips.labels[indices]


def _pick(seed: tuple[int, ...], epochs: np.ndarray, places: np.ndarray, length: int) -> np.ndarray:
    orders = (_of_all(seed, epoch, length) for epoch in epochs.tolist())
    return np.array([order[place] for order, place in zip(orders, places, strict=True)])


def _permutation(seed: tuple[int, ...], epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng([*seed, epoch]).permutation(length)


# A batch lies in one epoch or in two, in more where the set is tiny; in as many of classes as there are classes.
_of_all = functools.lru_cache(maxsize=8)(_permutation)
_of_class = functools.lru_cache(maxsize=4096)(_permutation)
