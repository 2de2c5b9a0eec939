"""The evaluator: scores of generated clips by protocols, each beside the score of real clips in their place.

`evaluate` takes features. `source_scores.py` featurises any two sets of clips for it, `reference_scores.py` a
generator's clips by the reference network of a data set.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from hrvgan.evaluation.memorisation import collapse_warnings
from hrvgan.evaluation.real_baseline import RealBaseline
from hrvgan.evaluation.sources import Undefined
from hrvgan.features.weight_files import WeightsMissing
from hrvgan.metrics.accuracy import chance_accuracy
from hrvgan.metrics.comparability import protocol_entry
from hrvgan.metrics.features import Features
from hrvgan.metrics.protocols import Protocol, lower_is_better


@dataclass(frozen=True)
class Comparison:
    """Features that protocols are computed from: real clips, and independent draws of generated ones."""

    baseline: RealBaseline
    fakes: list[Features]
    provenance: dict  # for manifests: extractor_id, real_digest, seed if something real is drawn by it
    verified: bool = True  # whether the extractor's weights are the published ones
    trivial: Sequence[list[Features]] = ()  # Generators without skill: for each, a set for each real side.


def evaluate(
    protocols: Iterable[Protocol], comparison_of: Callable[[Protocol], Comparison]
) -> tuple[dict, dict, dict[str, str]]:
    """(entries of the metrics JSON, entries of the manifest, reasons of what is left out), each by protocol.

    A protocol is left out if the clips are too few for it, or if `comparison_of` raises Undefined or WeightsMissing.
    """
    metrics, entries, left_out = {}, {}, {}
    memo, kept = {}, []  # `memo` knows features by their id(): they must live as long.
    for entry in protocols:
        try:
            clips = comparison_of(entry)
            check_enough(entry, clips)
        except (Undefined, WeightsMissing) as error:
            left_out[entry.name] = str(error)
            continue
        kept.append(clips)
        named = entry.reduced(len(clips.fakes[0]))
        if not clips.verified and entry.extractor != "given":
            named = named.unverified()
        metrics[named.name] = measure(entry, clips, memo)
        entries[named.name] = named.text() | clips.provenance | describe(entry, clips)
    return metrics, entries, left_out


def check_enough(protocol: Protocol, clips: Comparison) -> None:
    """Raises Undefined if any pair of sides has too few clips."""
    for real in (*clips.baseline.real, *clips.baseline.train):
        for fake in clips.fakes:
            if reason := protocol.lacks(real, fake):
                raise Undefined(reason)


def measure(protocol: Protocol, clips: Comparison, memo: dict) -> dict[str, float]:
    """Value and sd over draws, and the scores of real, training and trivial clips, and of guessing, by name.

    A landmark of fewer clips than the value has their number beside it.
    """

    def mean(reals: list[Features], fakes: list[Features]) -> float:
        return float(np.mean([protocol.measure(*pair, memo) for pair in zip(reals, fakes, strict=True)]))

    def of_draws(reals: list[Features]) -> list[float]:
        reals = reals if protocol.uses_real else reals[:1]
        return [mean(reals, [fake] * len(reals)) for fake in clips.fakes]

    baseline, n = clips.baseline, len(clips.fakes[0])
    values = of_draws(baseline.real)
    entry = {"value": float(np.mean(values))}
    if len(values) > 1:
        entry["sd"] = float(np.std(values, ddof=1))
    entry["n"] = float(n)
    without_logits = protocol.needs_labels and baseline.real[0].logits.shape[1] < 2
    if baseline.pairs and not without_logits and not any(protocol.lacks(*pair) for pair in baseline.pairs):
        entry[protocol.context] = mean(*zip(*baseline.pairs, strict=True))
        if (count := len(baseline.pairs[0][1])) < n:
            entry[f"{protocol.context}_n"] = count
    if protocol.uses_real and baseline.train:
        entry["train"] = float(np.mean(of_draws(baseline.train)))
    if protocol.uses_real and clips.trivial:
        best = min if protocol.lower_is_better else max
        entry["trivial_best"] = best(mean(baseline.real, trivial) for trivial in clips.trivial)
    if protocol.asks_labels and not protocol.uses_real:
        entry["chance"] = chance_accuracy(np.concatenate([fake.labels for fake in clips.fakes]))
    return entry


def describe(protocol: Protocol, clips: Comparison) -> dict:
    """Numbers of clips, and warnings of what makes the score worse than it looks."""
    real, fake = clips.baseline.real[0], clips.fakes[0]
    n, width = min(len(real), len(fake)), real.features.shape[1]
    warnings = collapse_warnings(real, fake)
    if protocol.ddof is not None and n <= width:
        warnings.append(f"N = {n} is not above D = {width}: mostly bias, read it beside its floor")
    return {
        "num_real": len(real),
        "num_fake": len(fake),
        "num_features": width,
        "num_draws": len(clips.fakes),
        "warnings": warnings,
    }


def table(metrics: dict, manifest: dict) -> str:
    """The scores as text, a line each: value, spread, direction, landmarks, numbers of clips."""
    lines = []
    for name, entry in metrics.items():
        if not isinstance(entry, dict):  # "gated"
            continue
        about, better = protocol_entry(name, manifest), "lower" if lower_is_better(name) else "higher"
        sd = f" ± {entry['sd']:.2g}" if "sd" in entry else ""
        landmarks = [
            f"{key} {number:.4g}" + (f" (of {entry[key + '_n']} clips)" if f"{key}_n" in entry else "")
            for key, number in entry.items()
            if key not in ("value", "sd", "n") and not key.endswith("_n")
        ]
        counts = f"N {about['num_real']} real, {about['num_fake']} fake"
        columns = [f"{name:<24} {entry['value']:>9.4g}{sd:<10} {better} is better", *landmarks, counts]
        lines.append("   ".join(columns))
    return "\n".join(lines)
