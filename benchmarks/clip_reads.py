"""Random clips from the Parquet store against a memory map of plain arrays, its floor.

    python -m benchmarks.clip_reads [data/clips/shapes]

Without a store it makes two, of 1,000 clips at 64 px and 128 at 256 px, 32 frames each. Clips a second, copied out of
the one and the other into the same kind of memory: new arrays or one that is used again, a clip at a time or sixteen.
Medians of 5 with a warm cache, the two by turns; 0.9 means 0.9 times as many as from the memory map.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from hrvgan.clipstore.clips import Clips
from hrvgan.clipstore.writer import Clip, write_clips

BYTES, ROUNDS, BATCH = 2**30, 5, 16

Read = Callable[[np.ndarray, np.ndarray | None], np.ndarray]  # (indices, out) -> clips


def clips_per_second(reads: list[Read], rows: np.ndarray, out: np.ndarray | None) -> list[float]:
    """Of each of `reads`, that copy the clips of a row of `rows` (R, N) at a time."""
    rates = [[] for _ in reads]
    for _ in range(ROUNDS + 1):
        for read, found in zip(reads, rates, strict=True):
            start = time.perf_counter()
            for indices in rows:
                read(indices, out)
            found.append(rows.size / (time.perf_counter() - start))
    return [statistics.median(found[1:]) for found in rates]


def mapped(plain: np.memmap, indices: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """As fast as numpy copies clips out of a memory map."""
    out = np.empty((len(indices), *plain.shape[1:]), np.uint8) if out is None else out
    for place, index in enumerate(indices):
        out[place] = plain[index]
    return out


def noise(count: int, size: int, num_frames: int = 32) -> Iterator[Clip]:
    draw = np.random.default_rng(0)
    for number in range(count):
        frames = draw.integers(256, size=(num_frames, size, size, 3), dtype=np.uint8)
        yield Clip(f"{number}", f"{number}", "", "", "train", f"{number}", 0, 1, 25.0, 0.0, frames)


def measure(store: Path) -> None:
    clips = Clips(store)
    print(f"{len(clips)} clips of {clips.shape}")
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "clips.npy", clips.read(range(len(clips))))
        plain = np.load(Path(folder) / "clips.npy", mmap_mode="r")
        for count in (1, BATCH):
            reads = max(1, BYTES // int(np.prod(clips.shape)) // count)
            rows = np.random.default_rng(0).integers(len(clips), size=(reads, count))
            for kind, out in (("new", None), ("used", np.zeros((count, *clips.shape), np.uint8))):
                floor, ours = clips_per_second([partial(mapped, plain), clips.read], rows, out)
                said = f"{count:2d} at a time, {kind:4s} memory"
                print(
                    f"{said}: memory map {floor:9,.0f}/s   store {ours:9,.0f}/s   {ours / floor:.2f}",
                    flush=True,
                )


def main() -> None:
    if len(sys.argv) > 1:
        return measure(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        for count, size in ((1000, 64), (128, 256)):
            store = Path(folder) / f"{size}"
            write_clips(store, noise(count, size), shape=(32, size, size, 3), classes=[])
            measure(store)


if __name__ == "__main__":
    main()
