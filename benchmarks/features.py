"""Feature extraction from a clip store, end to end, against the forward pass alone; and bfloat16.

    python -m benchmarks.features [data/clips/shapes] [data/reference/shapes]

Prints clips a second, medians of 5, and their ratio, which reading, converting and shrinking lower. Then the speed of
bfloat16 relative to float32, and the relative change of the scores of noisy clips against real ones.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError
from hrvgan.features.perturbations import noisy
from hrvgan.features.reference import batches
from hrvgan.features.refnet import RefNet, batch_size_for, featurise, load_refnet
from hrvgan.metrics import frechet_distance_from_features, kernel_distance

ROUNDS = 5


def rate(function: Callable[[], object], count: int) -> float:
    rates = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        function()
        rates.append(count / (time.perf_counter() - start))
    return statistics.median(rates[1:])  # The first one warms up.


def in_float32(net: RefNet, stream: Iterable[np.ndarray]) -> np.ndarray:
    return featurise(net, stream)[0]


@torch.inference_mode()
def in_bfloat16(net: RefNet, stream: Iterable[np.ndarray]) -> np.ndarray:
    """Features (N, D) as `featurise` would give them in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):
        return torch.cat([net(torch.as_tensor(batch))[0].float() for batch in stream]).numpy()


def moved(net: RefNet, clips: Clips) -> dict[str, float]:
    """Relative change by bfloat16 of each score of the second half, made noisy, against the first."""
    half, pairs = len(clips) // 2, []
    for extract in (in_float32, in_bfloat16):
        spoilt = extract(net, batches(clips, noisy, np.random.default_rng(0)))
        pairs.append((extract(net, batches(clips))[:half], spoilt[half:]))
    scores = {"refnet_fd": frechet_distance_from_features, "refnet_kid": kernel_distance}
    values = {name: [score(*pair) for pair in pairs] for name, score in scores.items()}
    return {name: abs(low / full - 1) for name, (full, low) in values.items()}


@torch.inference_mode()
def main(store: str, reference: str) -> None:
    clips, (net, _) = Clips(store).split("test"), load_refnet(Path(reference))
    video = net.prepare(torch.as_tensor(clips.read(range(min(len(clips), batch_size_for(clips.shape))))))
    plain = rate(lambda: net.read_out(video), len(video))
    whole = rate(lambda: featurise(net, batches(clips)), len(clips))
    low = rate(lambda: in_bfloat16(net, batches(clips)), len(clips))
    print(f"{store}: {len(clips)} clips of {clips.shape}, {torch.get_num_threads()} threads")
    print(f"forward {plain:,.0f}/s   end to end {whole:,.0f}/s   ratio {whole / plain:.2f}")
    shares = "   ".join(f"{name} moves by {share:.1e}" for name, share in moved(net, clips).items())
    print(f"bfloat16 {low:,.0f}/s, {low / whole:.2f} of float32   {shares}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.features", description=__doc__.split("\n\n")[0])
    parser.add_argument("store", nargs="?", default="data/clips/shapes", help="a clip store")
    parser.add_argument("reference", nargs="?", default="data/reference/shapes", help="its reference")
    try:
        main(**vars(parser.parse_args()))
    except InputError as error:
        sys.exit(f"error: {error}; for shapes both come of `dvc repro reference@shapes`")
