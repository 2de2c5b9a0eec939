"""Scores of one set of clips against another, whoever made them: both are featurised, then `evaluate` scores them."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError
from hrvgan.evaluation.evaluate import Comparison, evaluate
from hrvgan.evaluation.feature_cache import FeatureCache
from hrvgan.evaluation.real_baseline import real_baseline, spread
from hrvgan.evaluation.sources import (
    ClipGenerator,
    ClipSource,
    FrameRange,
    GeneratorSource,
    StoreSource,
    Undefined,
)
from hrvgan.features.extractors import Extractor, open_extractor
from hrvgan.metrics.protocols import Protocol, protocol

DRAWS = 5
UCF_CLASSES = 101
CHOICE = ("extractor", "num_clips", "num_real", "real_clips", "start", "real_start", "uses_real")  # of clips


def evaluate_published(
    gan: ClipGenerator,
    clips: Clips,
    names: list[str],
    *,
    weights: str | Path,
    device: str = "cpu",
    seed: int,
    num: int | None = None,
    cache: Path | None = None,
) -> tuple[dict, dict]:
    """(metrics, manifest) of `gan` by the published protocols `names` against the test clips, or all if there are none.

    `num` clips a draw, or as many as published; features of the real clips are kept in the folder `cache`.
    """
    check_num(num)
    protocols = [protocol(name) for name in names]
    split = "test" if len(clips.split("test")) >= 4 else ""
    real = StoreSource(clips.folder, split)
    most = max(
        (entry.num_clips for entry in protocols if isinstance(entry.num_clips, int)), default=len(real)
    )
    fake = GeneratorSource(gan, real.labels, DRAWS * min(num or most, most), seed)
    opener = functools.partial(open_extractor, folder=weights, device=device)
    return score_sources(protocols, real, fake, opener, seed=seed, num=num, cache=cache)


def score_sources(
    protocols: Iterable[Protocol],
    real: ClipSource,
    fake: ClipSource,
    open_extractor: Callable[[str], Extractor],
    *,
    seed: int = 0,
    num: int | None = None,
    cache: Path | None = None,
) -> tuple[dict, dict]:
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
        raise InputError(
            f"{num} clip(s) a draw asked for, need at least 2; leave it out for as many as published"
        )


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
    """Featurise the clips that `protocol` asks for, except those that `features` has."""
    rows = candidates(protocol, real, seed)
    num_real, n, draws = plan(protocol, len(rows), len(fake), num)
    real_frames, frames = (
        FrameRange(extractor.frames, start == "drawn", seed)
        for start in (protocol.real_start, protocol.start)
    )
    reals = features.get(extractor, real, rows[spread(len(rows), num_real)], real_frames, keep=True)
    made = features.get(extractor, fake, spread(len(fake), draws * n), frames, keep=False)
    fakes = [made.take(np.arange(draw, len(made), draws)) for draw in range(draws)]
    provenance = {"extractor_id": extractor.id, "real_digest": real.digest}
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
