"""Sensitivity of each metric to perturbed real clips.

    python -m benchmarks.sanity [data set]

Reads data/clips/<data set> and data/reference/<data set> (default: shapes); prints two markdown tables. In the first, a
row is a substitute for generated clips: training clips as they are, then perturbed, drawn and held against all test
clips as generated ones are. The second says by how much each fault of generators moves two of the metrics. Exit status
1: one is moved by no more than five standard deviations of unspoilt draws (or 0.01, where that is larger).
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError
from hrvgan.evaluation.evaluate import Comparison, evaluate
from hrvgan.evaluation.real_baseline import RealBaseline, draw_substitutes, shares
from hrvgan.evaluation.reference_scores import NUM_FAKE
from hrvgan.features import Features, load_features
from hrvgan.features.perturbations import FAULTS, PERTURBATIONS
from hrvgan.features.reference import batches
from hrvgan.features.refnet import RefNet, featurise, load_refnet
from hrvgan.metrics.protocols import of_extractor

DRAWS = 5
REAL = "training clips as they are"
MUST_MOVE = "refnet_fd", "refnet_precision"
FAR, LEAST = 5, 0.01  # Standard deviations of unspoilt draws, or at least so much.
Scores = dict[str, dict[str, dict[str, float]]]  # Substitute -> protocol -> value and sd over draws.


def reverse(clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(clips[:, ::-1])


def substitutes(net: RefNet, train: Clips, sets: dict[str, Features]) -> dict[str, list[Features]]:
    """Name -> draws in the place of generated clips."""
    pool, asked = sets["train"], shares(sets["test"].labels, NUM_FAKE)
    pools = {REAL: pool}
    for name, perturb in {**PERTURBATIONS, "time reversed": reverse}.items():
        made = featurise(net, batches(train, perturb, np.random.default_rng(0)))
        pools[name] = Features(*made, pool.labels, pool.groups)
    if train.num_classes > 1:  # Whatever class is asked for.
        rows = np.resize(np.flatnonzero(pool.labels == pool.labels.min()), len(pool))
        pools["one class only"] = Features(pool.features[rows], pool.logits[rows], pool.labels, pool.groups)
    return {name: draw_substitutes(rows, asked, NUM_FAKE, DRAWS, seed=0) for name, rows in pools.items()}


def scores(draws: list[Features], real: Features, labelled: bool) -> dict[str, dict[str, float]]:
    """Protocol -> value and sd over draws."""
    clips = Comparison(RealBaseline(real, []), draws, {})
    equal = clips.of_equal_numbers()
    protocols = [entry for entry in of_extractor("refnet") if labelled or not entry.needs_labels]
    return evaluate(protocols, lambda entry: clips if entry.num_real == "all" or not entry.uses_real else equal)[0]


def table(by_name: Scores) -> list[str]:
    """A column a protocol, a row a substitute: mean over draws, and the sd of training clips as they are."""
    arrows = {entry.name: "↓" if entry.lower_is_better else "↑" for entry in of_extractor("refnet")}
    heads = [f"`{name}` {arrows[name]}" for name in by_name[REAL]]
    lines = [row("in the place of generated clips", heads), "|---" * (len(heads) + 1) + "|"]
    for name, values in by_name.items():
        spread = {key: f" ± {entry['sd']:.2g}" if name == REAL else "" for key, entry in values.items()}
        lines.append(row(name, [f"{entry['value']:.3g}{spread[key]}" for key, entry in values.items()]))
    return lines


def row(name: str, cells: list[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def faults_table(by_name: Scores) -> tuple[list[str], list[str]]:
    """(a row a fault: by how much it moves each metric, and the bar; faults that move one by no more)."""
    bars = {name: max(FAR * by_name[REAL][name]["sd"], LEAST) for name in MUST_MOVE}
    heads = [f"`{name}` moves by (needed: {bar:.2g})" for name, bar in bars.items()]
    lines = [row("fault of generators", heads), "|---" * (len(heads) + 1) + "|"]
    unseen = []
    for fault in FAULTS:
        # For the worse: distances up, precision down.
        moves = {name: by_name[fault][name]["value"] - by_name[REAL][name]["value"] for name in MUST_MOVE}
        moves["refnet_precision"] *= -1
        lines.append(row(fault, [f"{moved:.2g}" for moved in moves.values()]))
        unseen += [f"{fault} by {name}" for name, moved in moves.items() if moved <= bars[name]]
    return lines, unseen


def main(dataset: str) -> None:
    clips = Clips(Path("data/clips") / dataset)
    net, info = load_refnet(Path("data/reference") / dataset)
    sets = load_features(Path("data/reference") / dataset / "features.npz")
    if len(sets["test"]) < 4:
        raise InputError(f"{dataset}: {len(sets['test'])} test clips, need at least 4")
    made = substitutes(net, clips.split("train"), sets)
    by_name = {name: scores(draws, sets["test"], info["labelled"]) for name, draws in made.items()}
    counts = f"{DRAWS} draws of {NUM_FAKE} clips, {len(sets['test'])} test clips"
    print(f"{dataset}: {counts}, refnet {info['id'][:12]}\n")
    lines, unseen = faults_table(by_name)
    print("\n".join([*table(by_name), "", *lines]))
    if unseen:
        sys.exit("not seen: " + ", ".join(unseen))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sanity", description=__doc__.split("\n\n")[0])
    parser.add_argument("dataset", nargs="?", default="shapes", help="an active data set; shapes by default")
    try:
        main(parser.parse_args().dataset)
    except InputError as error:
        sys.exit(f"error: {error}; `dvc repro reference@shapes` makes what is read of shapes")
