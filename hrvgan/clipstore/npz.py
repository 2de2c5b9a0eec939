"""A clip store as one .npz file and back, for programs that know numpy and nothing else."""

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from hrvgan.clipstore.clips import Clips
from hrvgan.clipstore.format import COLUMNS
from hrvgan.clipstore.writer import Clip, write_clips
from hrvgan.errors import InputError
from hrvgan.files import atomic_path


def export_npz(clips: Clips, path: str | Path) -> None:
    """Write `frames` uint8 (N, T, H, W, 3), `classes`, `filters` and each column of the index (N,), clip by clip."""
    columns = {name: _array(clips.index[name]) for name in COLUMNS}
    about = {"classes": np.array(clips.classes, dtype=np.str_), "filters": np.array(clips.filters)}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open("frames.npy", "w", force_zip64=True) as file:
            shape = (len(clips), *clips.shape)
            npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for number in range(len(clips)):
                file.write(clips[number].data)
        for name, array in (about | columns).items():
            with archive.open(f"{name}.npy", "w") as file:
                npy.write_array(file, array, allow_pickle=False)


def _array(column) -> np.ndarray:
    values = column.to_numpy(zero_copy_only=False)
    return values.astype(np.str_) if values.dtype == object else values


def import_npz(path: str | Path, out: str | Path, *, num_shards: int = 4) -> None:
    """Make the store `out` from an exported file, a clip at a time. InputError if it is missing, broken or lacks an
    array."""
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in ("classes", "filters", *COLUMNS)}
        with zipfile.ZipFile(path) as archive, archive.open("frames.npy") as file:
            shape = _frames_shape(file, path)
            options = {"classes": arrays.pop("classes").tolist(), "filters": str(arrays.pop("filters"))}
            clips = _clips(file, shape, arrays)
            write_clips(out, clips, shape=shape[1:], num_shards=num_shards, **options)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not an export of a clip store ({error}); export it again") from error


def _frames_shape(file: BinaryIO, path: str | Path) -> tuple[int, ...]:
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    shape, fortran, dtype = read[npy.read_magic(file)](file)
    if dtype != np.uint8 or len(shape) != 5 or shape[-1] != 3 or fortran:
        raise InputError(f"{path}: frames are {dtype} {shape}, not uint8 (N, T, H, W, 3); export them so")
    return shape


def _clips(file: BinaryIO, shape: tuple[int, ...], columns: dict[str, np.ndarray]) -> Iterator[Clip]:
    names = [name for name in COLUMNS if name != "label"]  # Labels follow from the class names.
    rows = zip(*(columns[name].tolist() for name in names), strict=True)
    for _, row in zip(range(shape[0]), rows, strict=True):
        frames = np.frombuffer(file.read(math.prod(shape[1:])), np.uint8).reshape(shape[1:])
        yield Clip(**dict(zip(names, row, strict=True)), frames=frames)
