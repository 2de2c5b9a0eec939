"""Random clips from the Parquet store against a memory map of plain arrays, its floor.

    python -m benchmarks.clip_reads [data/clips/shapes]

Prints clips a second, medians of 5 with a warm cache, and their ratio.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hrvgan.datasets.clips import Clips

READS, ROUNDS = 1000, 5


def clips_per_second(read: Callable[[int], np.ndarray], rows: np.ndarray) -> float:
    rates = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        for row in rows:
            read(row).sum()  # Touches every byte.
        rates.append(len(rows) / (time.perf_counter() - start))
    return statistics.median(rates[1:])


def main(store: str) -> None:
    clips = Clips(store)
    rows = np.random.default_rng(0).integers(len(clips), size=READS)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "clips.npy", clips.read(range(len(clips))))
        plain = np.load(Path(folder) / "clips.npy", mmap_mode="r")
        floor, ours = clips_per_second(plain.__getitem__, rows), clips_per_second(clips.__getitem__, rows)
    print(f"{store}: {len(clips)} clips of {clips.shape}")
    print(f"memory map {floor:,.0f}/s   store {ours:,.0f}/s   ratio {ours / floor:.2f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "data/clips/shapes")
