"""The real-against-real baseline: disjoint sets of real clips, from which floors and ceilings come."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hrvgan.errors import InputError
from hrvgan.features import Features
from hrvgan.metrics.protocols import Protocol

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class RealBaseline:
    """The real clips that generated ones are held against, and real clips in the place of generated ones."""

    real: Features
    # (real side, substitute for generated clips), disjoint; [] with fewer than four real clips.
    pairs: list[tuple[Features, Features]]
    # Draws of training clips in the place of generated ones, to be held against `real`: what a perfect generator gets.
    substitutes: Sequence[Features] = ()
    train: Features | None = None  # Training clips as the real side, as in published work.
    val: Features | None = None  # The real side by which models are chosen.
    split: str = ""


def reference_baseline(sets: dict[str, Features], num_halvings: int, seed: int) -> RealBaseline:
    """All test clips, which neither network was trained on, and their halves; training clips if those are too few."""
    split = "test" if len(sets["test"]) >= 4 else "train"
    real, train, val = (sets.get(name) for name in (split, "train", "val"))
    pairs = [(real.take(a), real.take(b)) for a, b in halvings(real, num_halvings, seed)]
    if split == "train":
        return RealBaseline(real, pairs, split=split)
    rng, every = np.random.default_rng(seed), np.arange(len(train))
    same_number = train.take(_thin(every, train.labels, len(real), rng)) if len(train) >= len(real) else None
    return RealBaseline(real, pairs, train=same_number, val=val if val and len(val) >= 4 else None, split=split)


def shares(labels: np.ndarray, num: int) -> np.ndarray:
    """`num` labels, sorted, of each class its share in `labels`."""
    return np.sort(labels)[spread(len(labels), num)]


def draw_substitutes(train: Features, asked: np.ndarray | None, num: int, draws: int, seed: int) -> list[Features]:
    """`draws` sets of `num` training clips, drawn at random, in the place of generated ones.

    They have the classes `asked` for (num,) or, as of a generator that takes no class, some by chance. A clip is drawn
    again only where a class has too few.
    """
    rng = np.random.default_rng(seed)
    labels = [rng.choice(train.labels, num) if asked is None else asked for _ in range(draws)]
    return [train.take(_of_classes(train.labels, own, rng)) for own in labels]


def _of_classes(available: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A row of `available` labels for each of `labels`; any row for a class that is not among them."""
    rows = np.empty(len(labels), dtype=int)
    for label in np.unique(labels):
        own, places = np.flatnonzero(available == label), np.flatnonzero(labels == label)
        own = own if len(own) else np.arange(len(available))
        rows[places] = rng.choice(own, len(places), replace=len(places) > len(own))
    return rows


def real_baseline(protocol: Protocol, real: Features, n: int, seed: int) -> RealBaseline:
    """The real side for draws of `n` clips, and one pair of the same statistic.

    If `n` real clips stand against `n` fake ones, the pair is two disjoint sets of `n`. If all real clips do, it is
    all others against `n` of them, which leaves out these `n` and the clips of their groups. With fewer than 2 `n` real
    clips, the pair has as many as there are.
    """
    every = protocol.num_real == "all"
    side = real if every else real.take(spread(len(real), min(n, len(real))))
    if len(real) < 4:
        return RealBaseline(side, [])
    if every:
        pair = apart(real, n, seed)
    else:
        pair = [rows[spread(len(rows), min(n, len(rows)))] for rows in halvings(real, 1, seed)[0]]
    return RealBaseline(side, [tuple(real.take(rows) for rows in pair)])


def spread(available: int, num: int) -> np.ndarray:
    """`num` of `available` rows, evenly spread, since stores are often sorted by class."""
    return np.arange(num) * available // num


def halvings(real: Features, count: int, seed: int) -> list[Pair]:
    """`count` pairs of disjoint row sets of `real`, all of one size, as alike in classes as groups allow.

    No group straddles a pair, unless one holds more than two thirds of the clips: then clips are dealt one by one.
    Raises InputError below 4 clips.
    """
    if len(real) < 4:
        raise InputError(f"{len(real)} real clips, need at least 4 to halve them; extract more clips")
    rng = np.random.default_rng(seed)
    units = real.groups if halved_by_group(real) else np.arange(len(real))
    pairs = [_deal(units, real.labels, rng) for _ in range(count)]
    n = min(len(rows) for pair in pairs for rows in pair)
    return [tuple(_thin(rows, real.labels, n, rng) for rows in pair) for pair in pairs]


def apart(real: Features, n: int, seed: int) -> Pair:
    """(the rest, `n` clips as substitute for generated ones): no group straddles the two, as in `halvings`.

    At most half of the clips, and fewer than `n` where whole groups do not add up to it.
    """
    if len(real) < 4:
        raise InputError(f"{len(real)} real clips, need at least 4 to part them; extract more clips")
    rng, n = np.random.default_rng(seed), min(n, len(real) // 2)
    units = np.unique(real.groups, return_inverse=True)[1] if halved_by_group(real) else np.arange(len(real))
    sizes, taken = np.bincount(units), np.zeros(units.max() + 1, dtype=bool)
    for unit in rng.permutation(len(sizes)):
        count = sizes[taken].sum()
        taken[unit] = count < n and count + sizes[unit] <= max(n, len(real) // 2)
    inside = np.flatnonzero(taken[units])
    return np.flatnonzero(~taken[units]), _thin(inside, real.labels, min(n, len(inside)), rng)


def halved_by_group(real: Features) -> bool:
    """Tells if each half can have a third of the clips, and two of them, without splitting a group."""
    largest = np.unique_counts(real.groups).counts.max()
    return len(real) - largest >= max(2, len(real) / 3)


def few_groups(real: Features) -> bool:
    """Tells if halves by group are the same few every time, so that their spread says nothing."""
    return bool(halved_by_group(real) and len(np.unique(real.groups)) < 4)


def _deal(units: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """Deal units, in random order, each to the half with fewer clips of the unit's class, then with fewer clips."""
    members = {unit: np.flatnonzero(units == unit) for unit in np.unique(units)}
    per_class = np.zeros((2, labels.max() + 1), dtype=int)
    halves = [[], []]
    # Large units first: the small ones then level the sizes. The stable sort keeps random order among equals.
    for unit in sorted(rng.permutation(list(members)), key=lambda unit: -len(members[unit])):
        rows = members[unit]
        label = np.bincount(labels[rows]).argmax()
        keys = [(per_class[half, label], per_class[half].sum(), rng.random()) for half in (0, 1)]
        half = keys.index(min(keys))
        halves[half].append(rows)
        np.add.at(per_class[half], labels[rows], 1)
    return tuple(np.concatenate(rows) for rows in halves)


def _thin(rows: np.ndarray, labels: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` of `rows`, of each class its share, in order."""
    shuffled = rng.permutation(rows)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return np.sort(by_class[np.arange(n) * len(rows) // n])
