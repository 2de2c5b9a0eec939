"""A clip store as one .npz file and back, for programs that know numpy and nothing else."""

import zipfile
from pathlib import Path

import numpy as np

from hrvgan.datasets.clips import Clips
from hrvgan.datasets.format import COLUMNS
from hrvgan.datasets.store import Clip, write_clips
from hrvgan.errors import InputError
from hrvgan.files import atomic_path


def export_npz(clips: Clips, path: str | Path) -> None:
    """Write `frames` uint8 (N, T, H, W, 3), `classes`, `filters` and each column of the index (N,)."""
    columns = {name: _array(clips.index[name]) for name in COLUMNS}
    with atomic_path(path) as temporary:
        about = {"classes": np.array(clips.classes, dtype=np.str_), "filters": np.array(clips.filters)}
        np.savez(temporary, frames=clips.read(range(len(clips))), **about, **columns)


def _array(column) -> np.ndarray:
    values = column.to_numpy(zero_copy_only=False)
    return values.astype(np.str_) if values.dtype == object else values


def import_npz(path: str | Path, out: str | Path, *, num_shards: int = 4) -> None:
    """Make the store `out` from an exported file. InputError if it is missing, broken or lacks an array."""
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in ("frames", "classes", "filters", *COLUMNS)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not an export of a clip store ({error}); export it again") from error
    frames, classes = arrays.pop("frames"), arrays.pop("classes").tolist()
    if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[-1] != 3:
        raise InputError(
            f"{path}: frames are {frames.dtype} {frames.shape}, not uint8 (N, T, H, W, 3); export them so"
        )
    filters = str(arrays.pop("filters"))
    names = [name for name in COLUMNS if name != "label"]  # Labels follow from the class names.
    rows = zip(*(arrays[name].tolist() for name in names), strict=True)
    clips = (
        Clip(**dict(zip(names, row, strict=True)), frames=clip)
        for row, clip in zip(rows, frames, strict=True)
    )
    write_clips(out, clips, shape=frames.shape[1:], classes=classes, num_shards=num_shards, filters=filters)
