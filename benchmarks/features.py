"""Feature extraction from a clip store, end to end, against the plain forward pass of the same network.

    python -m benchmarks.features [data/clips/shapes] [data/reference/shapes]

Prints clips a second, medians of 5, and their ratio: what reading, converting and shrinking leave of the speed.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from hrvgan.datasets.clips import Clips
from hrvgan.metrics.refnet import batch_size_for, featurise, load_refnet
from hrvgan.scoring.reference import batches

ROUNDS = 5


def rate(function: Callable[[], object], count: int) -> float:
    rates = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        function()
        rates.append(count / (time.perf_counter() - start))
    return statistics.median(rates[1:])  # The first one warms up.


@torch.inference_mode()
def main(store: str, reference: str) -> None:
    clips, (net, _) = Clips(store).split("test"), load_refnet(Path(reference))
    video = net.prepare(torch.as_tensor(clips.read(range(min(len(clips), batch_size_for(clips.shape))))))
    plain = rate(lambda: net.read_out(video), len(video))
    whole = rate(lambda: featurise(net, batches(clips)), len(clips))
    print(f"{store}: {len(clips)} clips of {clips.shape}, {torch.get_num_threads()} threads")
    print(f"forward {plain:,.0f}/s   end to end {whole:,.0f}/s   ratio {whole / plain:.2f}")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(*given, *["data/clips/shapes", "data/reference/shapes"][len(given) :])
