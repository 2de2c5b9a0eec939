"""Sensitivity of each metric to perturbed real clips.

    python -m benchmarks.sanity [data set]

Reads data/clips/<data set> and data/reference/<data set> (default: shapes); prints a markdown table. Each row has a
substitute for generated clips: the held-out half of the real clips as they are, then perturbed.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError
from hrvgan.evaluation.real_baseline import few_groups, halvings
from hrvgan.features import Features, load_features
from hrvgan.features.reference import PERTURBATIONS
from hrvgan.features.refnet import RefNet, featurise, load_refnet
from hrvgan.metrics.protocols import of_extractor

HALVINGS = 10
REAL = "real against real"


def reverse(clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return clips[:, ::-1]


def one_class(rows: Features, pool: Features, rng: np.random.Generator) -> Features:
    """As many real clips of the first class; the labels asked for stay."""
    same = rng.choice(np.flatnonzero(pool.labels == pool.labels.min()), size=len(rows))
    return Features(pool.features[same], pool.logits[same], rows.labels, rows.groups)


def perturbed(net: RefNet, clips: Clips, rows: Features, perturb: Callable, seed: int = 0) -> Features:
    """Features of all `clips` after `perturb`."""
    rng = np.random.default_rng(seed)
    batches = np.array_split(np.arange(len(clips)), max(1, len(clips) // 64))
    made = featurise(net, (np.ascontiguousarray(perturb(clips.read(batch), rng)) for batch in batches))
    return Features(*made, rows.labels, rows.groups)


def sides(net: RefNet, clips: Clips, pool: Features, rows: list[np.ndarray]) -> dict[str, list[Features]]:
    """Name -> features on the fake side of each halving; `rows` are the clips of that side."""
    rng = np.random.default_rng(0)
    made = {REAL: [pool.take(half) for half in rows]}
    for name, perturb in {**PERTURBATIONS, "time reversed": reverse}.items():
        features = perturbed(net, clips, pool, perturb)
        made[name] = [features.take(half) for half in rows]
    if clips.num_classes > 1:
        made["one class only"] = [one_class(half, pool, rng) for half in made[REAL]]
    return made


def table(
    made: dict[str, list[Features]], real: list[Features], labelled: bool, spread_known: bool = True
) -> list[str]:
    """A column a protocol, a row a side: mean over halvings, and the sd over halvings of real against real."""
    protocols = [entry for entry in of_extractor("refnet") if labelled or not entry.needs_labels]
    protocols = [entry for entry in protocols if not entry.lacks(real[0], made[REAL][0])]
    heads = [f"`{entry.name}` {'↓' if entry.lower_is_better else '↑'}" for entry in protocols]
    lines = [
        "| in the place of generated clips | " + " | ".join(heads) + " |",
        "|---" * (len(heads) + 1) + "|",
    ]
    memo = {}
    for name, fakes in made.items():
        cells = []
        for entry in protocols:
            values = [entry.measure(a, b, memo) for a, b in zip(real, fakes, strict=True)]
            spread = f" ± {np.std(values, ddof=1):.2g}" if spread_known else " ± unknown"
            cells.append(f"{np.mean(values):.3g}{spread if name == REAL else ''}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def main(dataset: str) -> None:
    clips = Clips(Path("data/clips") / dataset)
    net, info = load_refnet(Path("data/reference") / dataset)
    sets = load_features(Path("data/reference") / dataset / "features.npz")
    split = "test" if len(sets["test"]) >= 4 else "train"
    pool, pairs = sets[split], halvings(sets[split], HALVINGS, seed=0)
    made = sides(net, clips.split(split), pool, [second for _, second in pairs])
    print(
        f"{dataset}: {len(pairs[0][0])} {split} clips a side, {HALVINGS} halvings, refnet {info['id'][:12]}\n"
    )
    real = [pool.take(first) for first, _ in pairs]
    print("\n".join(table(made, real, info["labelled"], spread_known=not few_groups(pool))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sanity", description=__doc__.split("\n\n")[0])
    parser.add_argument("dataset", nargs="?", default="shapes", help="an active data set; shapes by default")
    try:
        main(parser.parse_args().dataset)
    except InputError as error:
        sys.exit(f"error: {error}; `dvc repro reference@shapes` makes what is read of shapes")
