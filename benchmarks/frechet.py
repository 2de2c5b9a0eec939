"""The Frechet distance against the form with scipy.linalg.sqrtm, which most projects use.

    python -m benchmarks.frechet [quick]

Features of N clips a side with a spectrum that falls as 1/k, in float64. Prints seconds (best of a few), the ratio,
and the relative difference of the values. "quick" leaves out D = 2048, where sqrtm takes ten seconds or more a time.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from scipy.linalg import sqrtm

from hrvgan.metrics import frechet_distance, frechet_distance_from_features

CASES = [(32, 120), (400, 2048), (2048, 4096)]  # D, N


def features(n: int, width: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    mixing = np.linalg.qr(np.random.default_rng(99).standard_normal((width, width)))[0]
    return draw.standard_normal((n, width)) / np.sqrt(np.arange(1, width + 1)) @ mixing + 0.01 * seed


def by_sqrtm(real: np.ndarray, fake: np.ndarray) -> float:
    """The formula as it is usually written."""
    s1, s2 = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    gap = real.mean(axis=0) - fake.mean(axis=0)
    return gap @ gap + np.trace(s1) + np.trace(s2) - 2 * np.trace(sqrtm(s1 @ s2)).real


def seconds(function: Callable[[], float], rounds: int) -> tuple[float, float]:
    """(best time, answer)."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        answer = function()
        times.append(time.perf_counter() - start)
    return min(times), answer


def main(quick: bool) -> None:
    print(f"{'D':>5} {'N':>5} {'sqrtm s':>9} {'ours s':>9} {'ratio':>6} {'of moments s':>13} {'difference':>11}")
    for width, n in CASES[: 2 if quick else 3]:
        real, fake = features(n, width, 1), features(n, width, 2)
        rounds = 1 if width > 1000 else 5
        slow, textbook = seconds(lambda real=real, fake=fake: by_sqrtm(real, fake), rounds)
        fast, ours = seconds(lambda real=real, fake=fake: frechet_distance_from_features(real, fake), rounds)
        moments = [part for x in (real, fake) for part in (x.mean(axis=0), np.cov(x, rowvar=False))]
        alone, _ = seconds(lambda moments=moments: frechet_distance(*moments), rounds)
        apart = abs(ours - textbook) / textbook
        print(f"{width:>5} {n:>5} {slow:>9.3f} {fast:>9.3f} {slow / fast:>6.1f} {alone:>13.3f} {apart:>11.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frechet", description=__doc__.split("\n\n")[0])
    parser.add_argument("quick", nargs="?", choices=["quick"], help="leave out D = 2048")
    main(bool(parser.parse_args().quick))
