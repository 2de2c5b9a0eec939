"""Random clips from the Parquet store against a memory map of plain arrays, its floor.

    python -m benchmarks.clip_reads [data/clips/shapes]

Without a store it makes two, of 1,000 clips at 64 px and 128 at 256 px, 32 frames each. Prints clips a second, medians
of 5 with a warm cache, and their ratio. Every byte of a clip is touched once.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from hrvgan.datasets.clips import BatchStream, Clips
from hrvgan.datasets.store import Clip, write_clips

READS, ROUNDS = 1000, 5


def clips_per_second(read: Callable[[int], np.ndarray], rows: np.ndarray) -> float:
    rates = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        for row in rows:
            read(row).sum()  # Touches every byte.
        rates.append(len(rows) / (time.perf_counter() - start))
    return statistics.median(rates[1:])


def noise(count: int, size: int, num_frames: int = 32) -> Iterator[Clip]:
    draw = np.random.default_rng(0)
    for number in range(count):
        frames = draw.integers(256, size=(num_frames, size, size, 3), dtype=np.uint8)
        yield Clip(f"{number}", f"{number}", "", "", "train", f"{number}", 0, 1, 25.0, 0.0, frames)


def measure(store: Path) -> None:
    clips = Clips(store)
    reads = min(READS, 2**31 // int(np.prod(clips.shape)))
    rows = np.random.default_rng(0).integers(len(clips), size=reads)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "clips.npy", clips.read(range(len(clips))))
        plain = np.load(Path(folder) / "clips.npy", mmap_mode="r")
        floor, ours = clips_per_second(plain.__getitem__, rows), clips_per_second(clips.__getitem__, rows)
    stream = BatchStream(clips, batch_size=16)
    batches = 16 * clips_per_second(lambda step: stream.batch(step)[0], np.arange(max(1, reads // 16)))
    print(f"{len(clips)} clips of {clips.shape}")
    print(
        f"memory map {floor:,.0f}/s   store {ours:,.0f}/s, ratio {ours / floor:.2f}   in batches of 16 {batches:,.0f}/s"
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
