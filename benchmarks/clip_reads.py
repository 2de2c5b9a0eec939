"""Random reads from the Parquet store, compared with a memory map of plain arrays.

    python -m benchmarks.clip_reads [data/clips/shapes]

Without a store it writes two, of 1,000 clips at 64 px and 128 at 256 px, 32 frames each. Reported are clips per second,
copied into new arrays or one reused array, one or sixteen at a time: medians of 5 alternating runs with a warm cache.
Ratio 0.9 means 0.9 times as many clips per second as from the memory map.
"""

import argparse
import statistics
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
    """Median rate of each of `reads`, called with one row of `rows` (R, N) at a time."""
    rates = [[] for _ in reads]
    for _ in range(ROUNDS + 1):
        for read, measured in zip(reads, rates, strict=True):
            start = time.perf_counter()
            for indices in rows:
                read(indices, out)
            measured.append(rows.size / (time.perf_counter() - start))
    return [statistics.median(measured[1:]) for measured in rates]


def mapped(plain: np.memmap, indices: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """Copy clips from a memory map with numpy: the upper bound."""
    out = np.empty((len(indices), *plain.shape[1:]), np.uint8) if out is None else out
    for place, index in enumerate(indices):
        out[place] = plain[index]
    return out


def noise(count: int, size: int, num_frames: int = 32) -> Iterator[Clip]:
    rng = np.random.default_rng(0)
    for number in range(count):
        frames = rng.integers(256, size=(num_frames, size, size, 3), dtype=np.uint8)
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
                setting = f"{count:2d} at a time, {kind:4s} memory"
                print(f"{setting}: memory map {floor:9,.0f}/s   store {ours:9,.0f}/s   {ours / floor:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clip_reads", description=__doc__.split("\n\n")[0])
    parser.add_argument("store", nargs="?", type=Path, help="a clip store; without it two are written")
    if store := parser.parse_args().store:
        return measure(store)
    with tempfile.TemporaryDirectory() as folder:
        for count, size in ((1000, 64), (128, 256)):
            store = Path(folder) / f"{size}"
            write_clips(store, noise(count, size), shape=(32, size, size, 3), classes=[])
            measure(store)


if __name__ == "__main__":
    main()
