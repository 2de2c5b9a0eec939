"""The frames of single clips out of shards, with as little between them and the disk as there can be."""

import contextlib
import hashlib
import mmap
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hrvgan.clipstore.format import shard_name
from hrvgan.errors import InputError


class Reader:
    """Shards of one folder, opened when first read. Uncompressed frames are a view of the mapped file; compressed
    ones are decoded by a ParquetFile, one a thread, as it knows no locks."""

    def __init__(self, folder: Path, size: int):
        self.folder, self.size = folder, size
        self._maps, self._local = {}, threading.local()

    def __reduce__(self):
        return Reader, (self.folder, self.size)

    def read(self, shard: int, row: int, offset: int) -> np.ndarray:
        """The bytes of a clip, uint8 (T * H * W * 3,), not to be written to. Raises InputError."""
        try:
            if offset < 0:
                return self._decode(self._path(shard), row)
            if shard not in self._maps:
                self._maps[shard] = _map(self._path(shard))
            clip = self._maps[shard][offset : offset + self.size]
            if len(clip) < self.size:
                raise ValueError("it is too short")
            return clip
        except (OSError, ValueError, pa.ArrowException, KeyError) as error:
            cause = f"cannot be read ({error}); extract the data set again"
            raise InputError(f"{self._path(shard)}: {cause}") from error

    def _path(self, shard: int) -> Path:
        return self.folder / shard_name(shard)

    def sound(self, rows: Sequence[dict]) -> list[int]:
        """Numbers of the `rows` of the index whose frames are what it says."""
        found = []
        for number, row in enumerate(rows):
            with contextlib.suppress(InputError):
                frames = self.read(row["shard"], row["row"], row["offset"])
                if hashlib.sha256(frames.data).hexdigest() == row["digest"]:
                    found.append(number)
        return found

    def _decode(self, path: Path, row: int) -> np.ndarray:
        files = self._local.__dict__
        if path not in files:
            files[path] = pq.ParquetFile(path, memory_map=True)
        # The values of a fixed-size column lie in the last buffer; a row group holds one.
        return np.frombuffer(
            files[path].read_row_group(row, columns=["frames"])["frames"].chunk(0).buffers()[1], np.uint8
        )


def _map(path: Path) -> np.ndarray:
    with open(path, "rb") as file:
        content = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    if content[-4:].tobytes() != b"PAR1":
        raise ValueError("its end is missing")
    return content
