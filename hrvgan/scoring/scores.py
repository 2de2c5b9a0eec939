"""Scores of one set of clips against another, by protocols, whoever made them.

Two steps: featurise (clips stream by, features stay) and score. Features of real clips are kept by digest.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hrvgan.metrics.extractors import Extractor
from hrvgan.metrics.features import Features, load_features, save_features
from hrvgan.metrics.halves import halvings
from hrvgan.metrics.health import health
from hrvgan.metrics.protocols import Protocol
from hrvgan.metrics.weights import WeightsMissing
from hrvgan.scoring.sources import Cut, Source, Undefined

DRAWS = 5
UCF_CLASSES = 101


@dataclass(frozen=True)
class Sets:
    """What a protocol is computed from: the real side, disjoint real halves, and one or more draws of fakes."""

    real: Features
    halves: tuple[Features, Features] | None  # None: fewer than four real clips
    fakes: list[Features]
    real_digest: str
    extractor: str


def plan(protocol: Protocol, num_real: int, num_fake: int, num: int | None = None) -> tuple[int, int, int]:
    """(real clips to featurise, clips on the fake side, draws). N is `num` or as published, or what there is.

    A protocol that compares at equal N compares at the smaller one. Twice as many real clips as N make the floor one
    at the same N; several times as many fake ones make several draws.
    """
    published = num_fake if isinstance(protocol.num_clips, str) else protocol.num_clips
    n = min(num_fake, published, num or published)
    if isinstance(protocol.num_real, int) or protocol.num_real == "as many":
        n = min(n, num_real) if protocol.uses_real else n
        return min(num_real, 2 * n), n, max(1, min(DRAWS, num_fake // n))
    return num_real, n, max(1, min(DRAWS, num_fake // n))


def featurise(extractor: Extractor, source: Source, rows: np.ndarray, cut: Cut) -> Features:
    """Features of the clips `rows` of `source`, ascending. Memory grows by the features alone."""
    with tqdm(total=len(rows), desc=f"features of {source.name}", unit="clip") as bar:
        pairs = []
        for pair in extractor.stream(source.read(rows, cut)):
            pairs.append(pair)
            bar.update(len(pair[0]))
    features = np.concatenate([features for features, _ in pairs])
    logits = np.concatenate([np.empty((len(a), 0), np.float32) if b is None else b for a, b in pairs])
    return Features(features, logits, source.labels[rows], source.groups[rows])


def spread(available: int, num: int) -> np.ndarray:
    """`num` of `available` rows, evenly spread, so that no class at the beginning is all that is seen."""
    return np.arange(num) * available // num


def kept(folder: Path | None, facts: dict, make: Callable[[], Features]) -> Features:
    """`make()`, or what it gave the last time for the same `facts` (extractor, digest of the clips, cut, rows)."""
    if folder is None:
        return make()
    path = folder / f"{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]}.npz"
    if path.exists():
        return load_features(path)["real"]
    features = make()
    save_features(path, {"real": features})
    return features


def sets_of(
    protocol: Protocol,
    extractor: Extractor,
    real: Source,
    fake: Source,
    *,
    seed: int = 0,
    num: int | None = None,
    cache: Path | None = None,
) -> Sets:
    """Featurise what `protocol` asks for of two sources of clips."""
    num_real, n, draws = plan(protocol, len(real), len(fake), num)
    frames = extractor.frames
    real_cut = Cut(frames, protocol.real_start == "drawn", seed)
    rows = spread(len(real), num_real)
    facts = {"extractor": extractor.id, "real": real.digest, "frames": frames, "start": protocol.real_start,
             "seed": seed, "rows": num_real}  # fmt: skip
    reals = kept(cache, facts, lambda: featurise(extractor, real, rows, real_cut))
    chosen = spread(len(fake), draws * n)
    cut = Cut(frames, protocol.start == "drawn", seed)
    fakes = [featurise(extractor, fake, chosen[draw::draws], cut) for draw in range(draws)]
    return make_sets(protocol, reals, fakes, real.digest, extractor.id, seed)


def make_sets(
    protocol: Protocol, real: Features, fakes: list[Features], digest: str, extractor: str, seed: int = 0
) -> Sets:
    n = len(fakes[0])
    halves = None
    if len(real) >= 4:
        halves = tuple(real.take(rows) for rows in halvings(real, 1, seed)[0])
        if len(halves[0]) > n:
            halves = tuple(half.take(spread(len(half), n)) for half in halves)
    num_real = len(real) if protocol.num_real == "all" else min(n, len(real))
    side = real.take(spread(len(real), num_real))
    return Sets(side, halves, fakes, digest, extractor)


def score(protocol: Protocol, sets: Sets, memo: dict | None = None) -> tuple[Protocol, dict, dict]:
    """(protocol under its full name, entry of the metrics JSON, entry of the manifest).

    The entry has the value, its sd over draws where there are several, and what real clips get in place of the fakes,
    with their number where it is smaller.
    """
    n = len(sets.fakes[0])
    if n < protocol.least_clips:
        raise Undefined(f"{n} clips, need at least {protocol.least_clips}; give more")
    named = protocol.reduced(n)
    values = [protocol.measure(sets.real, fake, memo) for fake in sets.fakes]
    entry = {"value": float(np.mean(values)), "n": float(n)}
    if len(values) > 1:
        entry["sd"] = float(np.std(values, ddof=1))
    blind = protocol.needs_labels and sets.real.logits.shape[1] < 2  # Features were given without logits.
    if sets.halves and len(sets.halves[0]) >= protocol.least_clips and not blind:
        first, second = sets.halves
        entry[protocol.context] = protocol.measure(first, second, memo)
        if len(second) < n:
            entry[f"{protocol.context}_n"] = len(second)
    about = named.text() | {
        "extractor_id": sets.extractor,
        "real_digest": sets.real_digest,
        "num_real": len(sets.real),
        "num_fake": n,
        "num_features": sets.real.features.shape[1],
        "num_draws": len(values),
        "warnings": warnings(protocol, sets),
    }
    return named, entry, about


def warnings(protocol: Protocol, sets: Sets) -> list[str]:
    """What makes the number worse than it looks; it is scored all the same."""
    n, width = len(sets.fakes[0]), sets.real.features.shape[1]
    found = health(sets.real, sets.fakes)
    if protocol.ddof is not None and min(n, len(sets.real)) <= width:
        found.append(
            f"N = {min(n, len(sets.real))} is not above D = {width}: mostly bias, read it beside its floor"
        )
    return found


def score_all(
    protocols: Iterable[Protocol],
    real: Source,
    fake: Source,
    open_extractor: Callable[[str], Extractor],
    *,
    seed: int = 0,
    num: int | None = None,
    cache: Path | None = None,
) -> tuple[dict, dict]:
    """(metrics, manifest) of all `protocols` with `num` clips a draw (as published); each extractor is opened once.

    What one protocol lacks (weights, labels, frames) is a sentence of "left_out", and the others go on. A file that
    is not what it should be is an error.
    """
    metrics, about, left_out = {}, {}, []
    opened, memo, done = functools.cache(open_extractor), {}, {}
    for protocol in protocols:
        try:
            refuse(protocol, real, fake)
            extractor = opened(protocol.extractor)
            check_network(protocol, extractor, real)
            key = (protocol.extractor, protocol.num_clips, protocol.num_real, protocol.real_start)
            if key not in done:
                done[key] = sets_of(protocol, extractor, real, fake, seed=seed, num=num, cache=cache)
            named, metrics_entry, manifest_entry = score(protocol, done[key], memo)
        except (Undefined, WeightsMissing) as error:
            left_out.append(f"{protocol.name}: {error}")
            continue
        if protocol.needs_labels and extractor.classes is None and len(real.classes) != UCF_CLASSES:
            manifest_entry["warnings"].append("the network knows UCF101's classes, the clips have others")
        metrics[named.name], about[named.name] = metrics_entry, manifest_entry
    manifest = {"real": {"name": real.name, "digest": real.digest, "num_clips": len(real)}, "fake": {"name": fake.name},
                "seed": seed, "protocols": about, "left_out": left_out}  # fmt: skip
    return metrics, manifest


def refuse(protocol: Protocol, real: Source, fake: Source) -> None:
    """Raises Undefined where the protocol has no meaning for these sets."""
    if protocol.needs_labels and len(real.classes) < 2:
        raise Undefined("the real clips have no classes, without which it means nothing")
    if protocol.asks_labels and fake.classes != real.classes:
        raise Undefined("the generated clips do not carry the real ones' classes")


def check_network(protocol: Protocol, extractor: Extractor, real: Source) -> None:
    if protocol.needs_labels and extractor.classes is not None and extractor.classes != real.classes:
        raise Undefined("the network was not trained on the classes of the real clips")
