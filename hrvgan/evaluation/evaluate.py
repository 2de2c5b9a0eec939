"""The evaluator: scores of generated clips by protocols, each beside the score of real clips in their place.

`evaluate` takes features. `score_sources` featurises any two sets of clips for it, `reference_scores.py` a generator's
clips by the reference network of a data set.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError, first_few
from hrvgan.evaluation.frame_range import FrameRange, Undefined
from hrvgan.evaluation.memorisation import collapse_warnings
from hrvgan.evaluation.real_baseline import RealBaseline, few_groups, real_baseline, spread
from hrvgan.evaluation.sources import ClipSource, FeatureCache, GeneratorSource, StoreSource
from hrvgan.features import Features
from hrvgan.features.extractors import Extractor, open_extractor
from hrvgan.features.weight_files import WeightsMissing
from hrvgan.metrics.accuracy import chance_accuracy
from hrvgan.metrics.protocols import Protocol, lower_is_better, protocol, protocol_entry
from hrvgan.nn.base import VideoGAN

DRAWS = 5
UCF_CLASSES = 101
CHOICE = ("extractor", "num_clips", "num_real", "real_clips", "start", "real_start", "uses_real")  # of clips


@dataclass(frozen=True)
class Comparison:
    """Features that protocols are computed from: real clips, and independent draws of generated ones."""

    baseline: RealBaseline
    fakes: list[Features]
    provenance: dict  # for manifests: extractor_id, real_digest, seed if something real is drawn by it
    verified: bool = True  # whether the extractor's weights are the published ones
    trivial: Sequence[Features] = ()  # Clips of generators without skill.

    def of_equal_numbers(self) -> "Comparison":
        """The same with as many clips on either side: shares of neighbours depend on how many there are to be found."""
        baseline = self.baseline
        n = min(len(baseline.real), len(self.fakes[0]))
        thinned = functools.partial(_thinned, n=n)
        real, train, val = (side and thinned(side) for side in (baseline.real, baseline.train, baseline.val))
        substitutes = [thinned(side) for side in baseline.substitutes]
        return replace(
            self,
            baseline=replace(baseline, real=real, train=train, val=val, substitutes=substitutes),
            fakes=[thinned(fake) for fake in self.fakes],
            trivial=[thinned(fake) for fake in self.trivial],
        )


def _thinned(side: Features, n: int) -> Features:
    return side.take(spread(len(side), min(n, len(side))))


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
    for real in filter(None, (clips.baseline.real, clips.baseline.train)):
        for fake in clips.fakes:
            if reason := protocol.lacks(real, fake):
                raise Undefined(reason)


def measure(protocol: Protocol, clips: Comparison, memo: dict) -> dict[str, float]:
    """Value and sd over draws, and the scores of real, training and trivial clips, and of guessing, by name.

    A landmark of fewer clips than the value has their number beside it.
    """

    def score(real: Features, fake: Features) -> float:
        return protocol.measure(real, fake, memo)

    baseline, n = clips.baseline, len(clips.fakes[0])
    entry = _mean_and_sd([score(baseline.real, fake) for fake in clips.fakes], "value", "sd")
    entry["n"] = float(n)
    entry |= real_landmarks(protocol, baseline, n, score)
    if protocol.uses_real and baseline.train:
        entry["train"] = float(np.mean([score(baseline.train, fake) for fake in clips.fakes]))
    if protocol.uses_real and baseline.val and not protocol.lacks(baseline.val, clips.fakes[0]):
        entry |= _mean_and_sd([score(baseline.val, fake) for fake in clips.fakes], "val", "val_sd")
    if protocol.uses_real and clips.trivial:
        best = min if protocol.lower_is_better else max
        entry["trivial_best"] = best(score(baseline.real, trivial) for trivial in clips.trivial)
    if protocol.asks_labels and not protocol.uses_real:
        entry["chance"] = chance_accuracy(np.concatenate([fake.labels for fake in clips.fakes]))
    return entry


def real_landmarks(
    protocol: Protocol, baseline: RealBaseline, n: int, score: Callable[[Features, Features], float]
) -> dict[str, float]:
    """Scores of real clips in the place of generated ones: training clips against all of the real side where there are
    any, beside two halves of the real side; else the halves alone.

    A protocol that looks at the generated side alone gets the real side in its place.
    """
    sides = {}
    if baseline.substitutes:
        substitutes = baseline.substitutes if protocol.uses_real else [baseline.real]
        sides[protocol.context] = [(baseline.real, substitute) for substitute in substitutes]
    if protocol.uses_real or not sides:
        sides["halves" if sides else protocol.context] = baseline.pairs
    without_logits = protocol.needs_labels and baseline.real.logits.shape[1] < 2
    entry = {}
    for name, pairs in sides.items():
        if not pairs or without_logits or any(protocol.lacks(*pair) for pair in pairs):
            continue
        scores = [score(*pair) for pair in pairs]
        entry[name] = float(np.mean(scores))
        if name == "halves" and len(scores) > 1 and not few_groups(baseline.real):
            entry["halves_sd"] = float(np.std(scores, ddof=1))
        if (count := len(pairs[0][1])) < n:
            entry[f"{name}_n"] = float(count)
    return entry


def _mean_and_sd(scores: list[float], mean: str, sd: str) -> dict[str, float]:
    """The mean of `scores` under one name, and under another their sd, where there are two."""
    entry = {mean: float(np.mean(scores))}
    return entry | {sd: float(np.std(scores, ddof=1))} if len(scores) > 1 else entry


def describe(protocol: Protocol, clips: Comparison) -> dict:
    """Numbers of clips, and warnings of what makes the score worse than it looks."""
    real, fake = clips.baseline.real, clips.fakes[0]
    n, width = min(len(real), len(fake)), real.features.shape[1]
    warnings = collapse_warnings(real, fake)
    for side in ("real", "fake"):
        if causes := clips.provenance.get(f"bad_{side}"):
            warnings.append(f"{len(causes)} {side} clip(s) are left out: {first_few(causes)}")
    if protocol.ddof is not None and n <= width:
        warnings.append(f"N = {n} is not above D = {width}: mostly bias, read it beside its floor")
    counts = {"num_real": len(real), "num_fake": len(fake), "num_features": width}
    return counts | {"num_draws": len(clips.fakes), "warnings": warnings}


def table(metrics: dict, manifest: dict) -> str:
    """The scores as text, a line each: value, spread, direction, landmarks, numbers of clips."""
    lines = []
    for name, entry in metrics.items():
        if not isinstance(entry, dict):  # "gated"
            continue
        about, better = protocol_entry(name, manifest), "lower" if lower_is_better(name) else "higher"
        sd = f" ± {entry['sd']:.2g}" if "sd" in entry else ""
        landmarks = [
            f"{key} {number:.4g}" + (f" (of {entry[key + '_n']:.0f} clips)" if f"{key}_n" in entry else "")
            for key, number in entry.items()
            if key not in ("value", "sd", "n") and not key.endswith(("_n", "_sd"))
        ]
        counts = f"N {about['num_real']} real, {about['num_fake']} fake"
        columns = [f"{name:<24} {entry['value']:>9.4g}{sd:<10} {better} is better", *landmarks, counts]
        lines.append("   ".join(columns))
    return "\n".join(lines)


def evaluate_published(
    gan: VideoGAN, clips: Clips, names: list[str], *, weights: str | Path, device: str = "cpu", seed: int,
    num: int | None = None, cache: Path | None = None,
) -> tuple[dict, dict]:  # fmt: skip
    """(metrics, manifest) of `gan` by the published protocols `names` against the test clips, or all if there are none.

    `num` clips a draw, or as many as published; features of the real clips are kept in the folder `cache`.
    """
    check_num(num)
    protocols = [protocol(name) for name in names]
    real = StoreSource(clips.folder, "test" if len(clips.split("test")) >= 4 else "")
    published = [entry.num_clips for entry in protocols if isinstance(entry.num_clips, int)]
    most = max(published, default=len(real))
    fake = GeneratorSource(gan, real.labels, DRAWS * min(num or most, most), seed)
    opener = functools.partial(open_extractor, folder=weights, device=device)
    return score_sources(protocols, real, fake, opener, seed=seed, num=num, cache=cache)


def score_sources(
    protocols: Iterable[Protocol], real: ClipSource, fake: ClipSource,
    open_extractor: Callable[[str], Extractor], *, seed: int = 0, num: int | None = None,
    cache: Path | None = None,
) -> tuple[dict, dict]:  # fmt: skip
    """(metrics, manifest) of all `protocols` with `num` clips a draw (as published).

    Each extractor is opened once and sees each clip once; with the folder `cache`, each real clip once for all runs.
    """
    check_num(num)
    opened, features, comparisons = functools.cache(open_extractor), FeatureCache(cache), {}

    def comparison_of(entry: Protocol) -> Comparison:
        check_defined(entry, real, fake)
        extractor = opened(entry.extractor)
        if entry.needs_labels and extractor.classes not in (None, real.classes):
            raise Undefined("the network was not trained on the classes of the real clips")
        key = tuple(getattr(entry, name) for name in CHOICE)
        if key not in comparisons:
            comparisons[key] = compare_sources(entry, extractor, real, fake, features, seed=seed, num=num)
        return comparisons[key]

    metrics, entries, left_out = evaluate(protocols, comparison_of)
    for entry in entries.values():
        of_ucf = entry["needs_labels"] and opened(entry["extractor"]).classes is None
        if of_ucf and len(real.classes) != UCF_CLASSES:
            entry["warnings"].append("the network knows UCF101's classes, the clips have others")
    manifest = {
        "real": {"name": real.name, "digest": real.digest, "num_clips": len(real)},
        "fake": {"name": fake.name},
        "seed": seed,
        "protocols": entries,
        "left_out": [f"{name}: {reason}" for name, reason in left_out.items()],
    }
    return metrics, manifest


def check_num(num: int | None) -> None:
    if num is not None and num < 2:
        remedy = "leave it out for as many as published"
        raise InputError(f"{num} clip(s) a draw asked for, need at least 2; {remedy}")


def check_defined(protocol: Protocol, real: ClipSource, fake: ClipSource) -> None:
    """Raises Undefined if the protocol has no meaning for these sets."""
    if protocol.needs_labels and len(real.classes) < 2:
        raise Undefined("the real clips have no classes (given features no class probabilities), without which it "
                        "means nothing")  # fmt: skip
    if protocol.asks_labels and fake.classes != real.classes:
        raise Undefined("the generated clips do not carry the real ones' classes")


def compare_sources(
    protocol: Protocol, extractor: Extractor, real: ClipSource, fake: ClipSource, features: FeatureCache, *,
    seed: int = 0, num: int | None = None,
) -> Comparison:  # fmt: skip
    """Featurise the clips that `protocol` asks for, except those that `features` has; others take the place of bad
    ones."""
    real_frames, frames = (
        FrameRange(extractor.frames, start == "drawn", seed if start == "drawn" else 0)
        for start in (protocol.real_start, protocol.start)
    )
    some_bad = True
    while some_bad:
        real_rows = real.usable(candidates(protocol, real, seed), real_frames)
        rows = fake.usable(np.arange(len(fake)), frames)
        num_real, n, draws = plan(protocol, len(real_rows), len(rows), num)
        real_rows, rows = real_rows[spread(len(real_rows), num_real)], rows[spread(len(rows), draws * n)]
        reals = features.get(extractor, real, real_rows, real_frames, keep=True)
        made = features.get(extractor, fake, rows, frames, keep=False)
        some_bad = len(reals) < len(real_rows) or len(made) < len(rows)
    fakes = [made.take(np.arange(draw, len(made), draws)) for draw in range(draws)]
    provenance = {"extractor_id": extractor.id, "real_digest": real.digest}
    bad = {"bad_real": real.bad.get(real_frames), "bad_fake": fake.bad.get(frames)}
    provenance |= {key: list(causes.values()) for key, causes in bad.items() if causes}
    if real_frames.drawn or protocol.real_clips != "any":
        provenance["seed"] = seed
    return Comparison(real_baseline(protocol, reals, n, seed), fakes, provenance, extractor.verified)


def plan(protocol: Protocol, num_real: int, num_fake: int, num: int | None = None) -> tuple[int, int, int]:
    """(real clips to featurise, clips on the fake side, draws). N is `num` or as published, at most what there is.

    A protocol that compares at equal N compares at the smaller one. Twice as many real clips as N give a floor at the
    same N; several times as many fake ones give several draws.
    """
    published = num_fake if isinstance(protocol.num_clips, str) else protocol.num_clips
    n = min(num_fake, published, num or published)
    if protocol.num_real != "all":
        n = min(n, num_real) if protocol.uses_real else n
        num_real = min(num_real, 2 * n)
    return num_real, n, max(1, min(DRAWS, num_fake // n))


def candidates(protocol: Protocol, real: ClipSource, seed: int) -> np.ndarray:
    """Rows of the real clips that may be taken, ascending: any, or one of each video, drawn."""
    if protocol.real_clips == "any":
        return np.arange(len(real))
    order = np.random.default_rng(seed).permutation(len(real))
    return np.sort(order[np.unique(real.videos[order], return_index=True)[1]])
