"""Scores of a generator: draw clips, featurise them as they come, hold them against the real ones."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Protocol as Interface

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hrvgan.errors import InputError
from hrvgan.metrics.accuracy import chance_accuracy
from hrvgan.metrics.features import Features, load_features
from hrvgan.metrics.gates import check_gates
from hrvgan.metrics.halves import RealHalves, halve_real
from hrvgan.metrics.protocols import PROTOCOLS, Protocol
from hrvgan.metrics.refnet import RefNet, featurise, load_refnet

TRIVIAL = ("noise", "mean", "one")  # Generators without any skill.
CHUNK = 32  # Clips in memory at a time. Fixed: it decides the seeds, and so the clips.


class Generator(Interface):
    """What is scored: a VideoGAN, or anything that draws like one."""

    num_classes: int  # 0: takes no label
    classes: list[str]

    def sample(self, n: int, c: Tensor | None = None, seed: int = 0) -> Tensor:
        """uint8 (n, T, H, W, 3) of labels `c` (n,) int64."""


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
    asked = [protocol for protocol in PROTOCOLS.values() if defined(protocol, info, gan)]
    gates = check_gates(sets, seed)
    metrics = {protocol.name: score(protocol, real, fakes, sets) for protocol in asked}
    metrics["gated"] = all(gate.passed for gate in gates)
    manifest = describe(info, real, asked) | {
        "num_draws": draws,
        "seed": seed,
        "gates": [asdict(gate) for gate in gates],
        "ungated": [f"{gate.name}: {gate.sentence}" for gate in gates if not gate.passed],
    }
    return metrics, manifest


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


def draw_all(
    gan: Generator, net: RefNet, labels: list[np.ndarray], shape: list[int], seed: int
) -> list[Features]:
    """One draw for each array of labels to ask for, each with its own seed."""
    with tqdm(total=sum(map(len, labels)), desc="draw clips", unit="clip") as bar:
        return [
            draw(gan, net, asked, shape, [seed, number], progress=bar.update)
            for number, asked in enumerate(labels)
        ]


def draw(
    gan: Generator,
    net: RefNet,
    labels: np.ndarray,
    shape: list[int],
    seed: list[int],
    progress: Callable[[int], object] = lambda count: None,
) -> Features:
    """Features of one generated clip for each label (N,). Memory holds CHUNK clips at a time, whatever N."""

    def chunks() -> Iterator[np.ndarray]:
        for start in range(0, len(labels), CHUNK):
            c = torch.as_tensor(labels[start : start + CHUNK])
            own_seed = int(np.random.SeedSequence([*seed, start]).generate_state(1)[0])
            videos = gan.sample(len(c), c if gan.num_classes else None, seed=own_seed)
            if list(videos.shape[1:]) != list(shape):
                made, known = tuple(videos.shape[1:]), tuple(shape)
                remedy = "evaluate it on clips of the shape that it was trained on"
                raise InputError(
                    f"the model makes clips of {made}, the reference network knows {known}; {remedy}"
                )
            yield videos
            progress(len(c))

    return Features(*featurise(net, chunks()), labels, np.arange(len(labels)).astype(str))


def defined(protocol: Protocol, info: dict, gan: Generator) -> bool:
    return (info["labelled"] or not protocol.needs_labels) and (
        gan.num_classes > 0 or not protocol.asks_labels
    )


def score(
    protocol: Protocol, real: RealHalves, fakes: list[Features], sets: dict[str, Features]
) -> dict[str, float]:
    """Value and sd over draws, and what real, training and trivial clips or guessing get under the same name."""

    def mean(real_side: list[Features], fake_side: list[Features]) -> float:
        return float(np.mean([protocol.statistic(a, b) for a, b in zip(real_side, fake_side, strict=True)]))

    def each(real_side: list[Features]) -> list[float]:
        # Where the real side does not matter, once is enough.
        real_side = real_side if protocol.uses_real else real_side[:1]
        return [mean(real_side, [fake] * len(real_side)) for fake in fakes]

    values = each(real.real_side)
    entry = {"value": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}
    entry[protocol.context] = mean(real.real_side, real.fake_side)
    if protocol.uses_real:
        if real.train:
            entry["train"] = float(np.mean(each(real.train)))
        # Row k of a trivial set is its one clip of class k.
        trivials = [
            [sets[f"trivial_{name}"].take(half.labels) for half in real.fake_side] for name in TRIVIAL
        ]
        entry["trivial_best"] = min(mean(real.real_side, trivial) for trivial in trivials)
    if protocol.asks_labels:
        entry["chance"] = chance_accuracy(np.concatenate([fake.labels for fake in fakes]))
    return entry


def describe(info: dict, real: RealHalves, asked: list[Protocol]) -> dict:
    """All that two results must share before they may be compared, and notes on what not to read into them."""
    n, width = real.num_clips, info["arguments"]["num_features"]
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
        "extractor": f"refnet-{info['id']}",
        "real": {"data_digest": info["data_digest"], "split": real.split},
        "num_real": n,
        "num_fake": n,
        "protocols": {protocol.name: protocol.text() for protocol in asked},
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
                f"{key} {number:.4g}" for key, number in entry.items() if key not in ("value", "sd")
            )
            lines.append(f"{name:<12}{entry['value']:>10.4g} ± {entry['sd']:<10.2g}{rest}")
    return "\n".join(lines)
