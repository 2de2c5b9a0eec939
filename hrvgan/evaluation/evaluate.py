"""Scores of a generator: draw clips, featurise them as they come, hold them against the real ones."""

from functools import partial
from pathlib import Path

import numpy as np

from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError
from hrvgan.evaluation.collapse import health
from hrvgan.evaluation.gates import check_gates, verdict
from hrvgan.evaluation.generator_source import Generator, GeneratorSource, draw_all
from hrvgan.evaluation.memorisation import closeness
from hrvgan.evaluation.real_baseline import RealHalves, halve_real
from hrvgan.evaluation.scores import DRAWS, check_num, score_all
from hrvgan.evaluation.sources import StoreSource
from hrvgan.features.extractors import open_extractor
from hrvgan.features.refnet import load_refnet
from hrvgan.metrics.accuracy import chance_accuracy
from hrvgan.metrics.features import Features, load_features
from hrvgan.metrics.protocols import Protocol, of_extractor, protocol

TRIVIAL = ("noise", "mean", "one")  # Generators without any skill.


def evaluate(
    gan: Generator,
    reference: str | Path,
    *,
    draws: int = 5,
    seed: int = 0,
    num_clips: int | str = "auto",
    num_halvings: int = 10,
) -> tuple[dict, dict]:
    """(metrics, manifest) of `gan`, by all protocols that the data allow, against the folder of stage `reference`.

    Metrics are numbers: the value of each protocol (mean over `draws` independent draws) with its sd, what real clips
    score in the place of generated ones, and "gated". The manifest says what they mean. A draw has as many clips as
    the real half that it is held against, `num_clips` or ("auto") half of the split, and labels like such a half.
    """
    check_numbers(draws, num_clips, num_halvings)
    net, info = load_refnet(Path(reference))
    sets = load_features(Path(reference) / "features.npz")
    check_classes(gan, info)
    real = halve_real(sets, num_halvings, seed, None if num_clips == "auto" else num_clips)
    labels = [real.fake_side[number % num_halvings].labels for number in range(draws)]
    fakes = draw_all(gan, net, labels, info["clip_shape"], seed)
    meant = [entry for entry in of_extractor("refnet") if defined(entry, info, gan)]
    reasons = {entry: lacks(entry, real) for entry in meant}
    asked = [entry for entry in meant if not reasons[entry]]
    left_out = [f"{entry.name} is left out: {reason}" for entry, reason in reasons.items() if reason]
    trivials = trivial_sides(sets, real)
    memo = {}  # By identity of the features above: all of them live as long as it does.
    gates = verdict(check_gates(sets, seed))
    metrics = {entry.name: score(entry, real, fakes, trivials, memo) for entry in asked}
    metrics["gated"] = gates["gated"]
    manifest = (
        describe(info, real, asked)
        | gates
        | {
            "num_draws": draws,
            "seed": seed,
            "memorisation": closeness(fakes, sets[real.split], sets["train"])
            if real.split == "test"
            else None,
        }
    )
    manifest["notes"] += left_out + health(real.real_side[0], fakes)
    return metrics, manifest


def evaluate_all(
    gan: Generator,
    reference: str | Path,
    *,
    draws: int = 5,
    seed: int = 0,
    num_clips: int | str = "auto",
    num_halvings: int = 10,
) -> tuple[dict, dict]:
    """`evaluate` by every network of the folder `reference`. The scores are those of the first; the manifest's
    "networks" has the values of each, by its id, "ungated_networks" the reasons to believe none of some."""
    arguments = {"draws": draws, "seed": seed, "num_clips": num_clips, "num_halvings": num_halvings}
    metrics, manifest = evaluate(gan, reference, **arguments)
    results = [(metrics, manifest)]
    results += [evaluate(gan, folder, **arguments) for folder in sorted(Path(reference).glob("network-*"))]
    networks = {about["extractor"]: values_of(values) for values, about in results}
    ungated = {about["extractor"]: about["ungated"] for _, about in results if not about["gated"]}
    return metrics, manifest | {"networks": networks, "ungated_networks": ungated}


def values_of(metrics: dict) -> dict[str, float]:
    return {name: entry["value"] for name, entry in metrics.items() if isinstance(entry, dict)}


def evaluate_published(
    gan: Generator,
    clips: Clips,
    protocols: list[str],
    *,
    weights: str | Path,
    device: str = "cpu",
    seed: int,
    num: int | None = None,
    cache: Path | None = None,
) -> tuple[dict, dict]:
    """(metrics, manifest) of `gan` by published `protocols` against the test clips, or all where there are none.

    `num` clips a draw, or as many as published; features of the real clips are kept in the folder `cache`.
    """
    check_num(num)
    asked = [protocol(name) for name in protocols]
    split = "test" if len(clips.split("test")) >= 4 else ""
    real = StoreSource(clips.folder, split)
    most = max((entry.num_clips for entry in asked if isinstance(entry.num_clips, int)), default=len(real))
    fake = GeneratorSource(gan, real.labels, DRAWS * min(num or most, most), seed)
    opener = partial(open_extractor, folder=weights, device=device)
    return score_all(asked, real, fake, opener, seed=seed, num=num, cache=cache)


def check_numbers(draws: int, num_clips: int | str, num_halvings: int) -> None:
    if draws < 2:
        raise InputError(f"evaluate.draws: {draws}, need at least 2 for a spread; 5 is usual")
    if num_clips != "auto" and (not isinstance(num_clips, int) or num_clips < 2):
        raise InputError(f"evaluate.num_clips: {num_clips!r}, need auto or a number of clips from 2 on")
    if num_halvings < 1:
        raise InputError(f"evaluate.num_halvings: {num_halvings}, need at least 1; 10 is usual")


def check_classes(gan: Generator, info: dict) -> None:
    if gan.num_classes and list(gan.classes) != info["classes"]:
        raise InputError(
            f"the model makes the classes {', '.join(gan.classes)}, the reference network was trained on "
            f"{', '.join(info['classes']) or 'none'}; evaluate it on the data set that it was trained on"
        )


def defined(protocol: Protocol, info: dict, gan: Generator) -> bool:
    """Whether it has a meaning for this data set and generator."""
    return (info["labelled"] or not protocol.needs_labels) and (
        gan.num_classes > 0 or not protocol.asks_labels
    )


def lacks(protocol: Protocol, real: RealHalves) -> str:
    """What keeps it from being computed on these clips, in words; "" where nothing does. Draws have the labels of
    the fake side."""
    pairs = [
        (a, b) for side in (real.real_side, real.train) for a, b in zip(side, real.fake_side, strict=False)
    ]
    return next(filter(None, (protocol.lacks(*pair) for pair in pairs)), "")


def trivial_sides(sets: dict[str, Features], real: RealHalves) -> list[list[Features]]:
    """What each generator without skill puts in the place of the real halves; row k of its set is of class k."""
    return [[sets[f"trivial_{name}"].take(half.labels) for half in real.fake_side] for name in TRIVIAL]


def score(
    protocol: Protocol,
    real: RealHalves,
    fakes: list[Features],
    trivials: list[list[Features]],
    memo: dict,
) -> dict[str, float]:
    """Value and sd over draws, and what real, training and trivial clips or guessing get under the same name."""

    def mean(real_side: list[Features], fake_side: list[Features]) -> float:
        pairs = zip(real_side, fake_side, strict=True)
        return float(np.mean([protocol.measure(a, b, memo) for a, b in pairs]))

    def each(real_side: list[Features]) -> list[float]:
        # Where the real side does not matter, once is enough.
        real_side = real_side if protocol.uses_real else real_side[:1]
        return [mean(real_side, [fake] * len(real_side)) for fake in fakes]

    values = each(real.real_side)
    entry = {"value": float(np.mean(values)), "sd": float(np.std(values, ddof=1)), "n": float(real.num_clips)}
    entry[protocol.context] = mean(real.real_side, real.fake_side)
    if protocol.uses_real:
        if real.train:
            entry["train"] = float(np.mean(each(real.train)))
        best = min if protocol.lower_is_better else max
        entry["trivial_best"] = best(mean(real.real_side, trivial) for trivial in trivials)
    if protocol.asks_labels and not protocol.uses_real:  # An answer, which can be guessed.
        entry["chance"] = chance_accuracy(np.concatenate([fake.labels for fake in fakes]))
    return entry


def describe(info: dict, real: RealHalves, asked: list[Protocol]) -> dict:
    """All that two results must share before they may be compared, and notes on what not to read into them."""
    n, width = real.num_clips, info["arguments"]["num_features"]
    extractor, digest = f"refnet-{info['id']}", f"{info['data_digest']}:{real.split}"
    facts = {
        "extractor_id": extractor,
        "real_digest": digest,
        "num_real": n,
        "num_fake": n,
        "num_features": width,
    }
    notes = [
        (
            real.split == "train",
            "too few test clips: real clips are training clips, so nothing is said about new ones",
        ),
        (not real.by_group, "one source video holds most real clips: halves share it, so floors are too low"),
        (
            real.by_group and real.num_groups < 4,
            "few groups of real clips: floors are mostly how those groups differ",
        ),
        (n <= width, f"N = {n} is not above D = {width}: refnet_fd is mostly bias, read refnet_kid"),
        (not info["labelled"], "the network learnt a pretext task, so refnet_is and refnet_acc do not exist"),
    ]
    return {
        "extractor": extractor,
        "real": {"data_digest": info["data_digest"], "split": real.split},
        "num_real": n,
        "num_fake": n,
        "protocols": {protocol.name: protocol.text() | facts for protocol in asked},
        "num_features": width,
        "clip_shape": info["clip_shape"],
        "resized_to_at_most": {key: info["arguments"][key] for key in ("max_size", "max_frames")},
        "num_halvings": len(real.real_side),
        "num_groups": real.num_groups,
        "halves": "by group" if real.by_group else "by clip",
        # Balanced halves and draws differ less than independent ones: for equal sets KID is then below zero.
        "labels": "those of a real half, which is balanced as the real clips are",
        "reference": info,
        "notes": [note for holds, note in notes if holds],
    }


def table(metrics: dict) -> str:
    """The scores as text, a line each."""
    lines = []
    for name, entry in metrics.items():
        if isinstance(entry, dict):
            rest = "   ".join(
                f"{key} {number:.4g}" for key, number in entry.items() if key not in ("value", "sd", "n")
            )
            sd = f"± {entry['sd']:<10.2g}" if "sd" in entry else " " * 12
            lines.append(f"{name:<18}{entry['value']:>10.4g} {sd}{rest}")
    return "\n".join(lines)
