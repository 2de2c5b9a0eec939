"""Scores of one set of clips against another, by protocols, whoever made them.

Two steps: featurise (clips stream by, features stay: `bank.py`) and score.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hrvgan.errors import InputError
from hrvgan.evaluation.collapse import health
from hrvgan.evaluation.feature_cache import Bank
from hrvgan.evaluation.real_baseline import apart, halvings
from hrvgan.evaluation.sources import Cut, Source, Undefined
from hrvgan.features.extractors import Extractor
from hrvgan.features.weight_files import WeightsMissing
from hrvgan.metrics.features import Features
from hrvgan.metrics.protocols import Protocol

DRAWS = 5
UCF_CLASSES = 101
CHOICE = ("extractor", "num_clips", "num_real", "real_clips", "start", "real_start", "uses_real")  # of clips


@dataclass(frozen=True)
class Sets:
    """What a protocol is computed from: the real side, disjoint real clips for both sides, and draws of fakes."""

    real: Features
    halves: tuple[Features, Features] | None  # None: fewer than four real clips
    fakes: list[Features]
    facts: dict  # extractor_id, real_digest, seed where something real is drawn by it
    verified: bool  # whether the network is the published one


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


def check_num(num: int | None) -> None:
    if num is not None and num < 2:
        raise InputError(
            f"{num} clip(s) a draw asked for, need at least 2; leave it out for as many as published"
        )


def spread(available: int, num: int) -> np.ndarray:
    """`num` of `available` rows, evenly spread, so that no class at the beginning is all that is seen."""
    return np.arange(num) * available // num


def candidates(protocol: Protocol, real: Source, seed: int) -> np.ndarray:
    """The real clips that may be taken, ascending: any, or one of each video, drawn."""
    if protocol.real_clips == "any":
        return np.arange(len(real))
    order = np.random.default_rng(seed).permutation(len(real))
    return np.sort(order[np.unique(real.videos[order], return_index=True)[1]])


def sets_of(
    protocol: Protocol, extractor: Extractor, real: Source, fake: Source, bank: Bank, *, seed: int = 0,
    num: int | None = None,
) -> Sets:  # fmt: skip
    """Featurise what `protocol` asks for of two sources of clips, as far as `bank` does not know it."""
    own = candidates(protocol, real, seed)
    num_real, n, draws = plan(protocol, len(own), len(fake), num)
    real_cut, cut = (
        Cut(extractor.frames, start == "drawn", seed) for start in (protocol.real_start, protocol.start)
    )
    reals = bank.features(extractor, real, own[spread(len(own), num_real)], real_cut, keep=True)
    made = bank.features(extractor, fake, spread(len(fake), draws * n), cut, keep=False)
    fakes = [made.take(np.arange(draw, len(made), draws)) for draw in range(draws)]
    drawn = real_cut.drawn or protocol.real_clips != "any"
    facts = {"extractor_id": extractor.id, "real_digest": real.digest} | ({"seed": seed} if drawn else {})
    return Sets(*real_sides(protocol, reals, n, seed), fakes, facts, extractor.verified)


def real_sides(
    protocol: Protocol, real: Features, n: int, seed: int
) -> tuple[Features, tuple[Features, Features] | None]:
    """(the real side, real clips for both sides) of draws of `n` clips.

    What real clips score is the statistic of the value. Where `n` real clips stand against `n` fake ones: two
    disjoint sets of `n`. Where all real clips do: `n` of them against all others, which are fewer by those `n` (and
    by clips of their groups). Where there are not 2 `n` real clips, with as many as there are.
    """
    every = protocol.num_real == "all"
    side = real if every else real.take(spread(len(real), min(n, len(real))))
    if len(real) < 4:
        return side, None
    if every:
        return side, tuple(real.take(rows) for rows in apart(real, n, seed))
    pair = (real.take(rows) for rows in halvings(real, 1, seed)[0])
    return side, tuple(half.take(spread(len(half), min(n, len(half)))) for half in pair)


def score(protocol: Protocol, sets: Sets, memo: dict | None = None) -> tuple[Protocol, dict, dict]:
    """(protocol under its full name, entry of the metrics JSON, entry of the manifest).

    The entry has the value, its sd over draws where there are several, and what real clips get in place of the fakes,
    with their number where it is smaller.
    """
    n = len(sets.fakes[0])
    for fake in sets.fakes:
        if reason := protocol.lacks(sets.real, fake):
            raise Undefined(reason)
    named = protocol.reduced(n)
    if not sets.verified and protocol.extractor != "given":
        named = named.unverified()
    values = [protocol.measure(sets.real, fake, memo) for fake in sets.fakes]
    entry = {"value": float(np.mean(values)), "n": float(n)}
    if len(values) > 1:
        entry["sd"] = float(np.std(values, ddof=1))
    blind = protocol.needs_labels and sets.real.logits.shape[1] < 2  # Features were given without logits.
    if sets.halves and not protocol.lacks(*sets.halves) and not blind:
        first, second = sets.halves
        entry[protocol.context] = protocol.measure(first, second, memo)
        if len(second) < n:
            entry[f"{protocol.context}_n"] = len(second)
    about = named.text() | sets.facts | {
        "num_real": len(sets.real),
        "num_fake": n,
        "num_features": sets.real.features.shape[1],
        "num_draws": len(values),
        "warnings": warnings(protocol, sets),
    }  # fmt: skip
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
    """(metrics, manifest) of all `protocols` with `num` clips a draw (as published); each extractor is opened once,
    and looks once at each clip; with `cache`, a folder, at each real clip once for all runs.

    What one protocol lacks (weights, labels, frames) is a sentence of "left_out", and the others go on. A file that
    is not what it should be is an error.
    """
    check_num(num)
    metrics, about, left_out = {}, {}, []
    opened, bank, memo, done = functools.cache(open_extractor), Bank(cache), {}, {}
    for protocol in protocols:
        try:
            refuse(protocol, real, fake)
            extractor = opened(protocol.extractor)
            check_network(protocol, extractor, real)
            key = tuple(getattr(protocol, name) for name in CHOICE)
            if key not in done:  # The same arrays: `memo` knows them by identity.
                done[key] = sets_of(protocol, extractor, real, fake, bank, seed=seed, num=num)
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
        raise Undefined("the real clips have no classes (given features no class probabilities), without which it "
                        "means nothing")  # fmt: skip
    if protocol.asks_labels and fake.classes != real.classes:
        raise Undefined("the generated clips do not carry the real ones' classes")


def check_network(protocol: Protocol, extractor: Extractor, real: Source) -> None:
    if protocol.needs_labels and extractor.classes is not None and extractor.classes != real.classes:
        raise Undefined("the network was not trained on the classes of the real clips")
