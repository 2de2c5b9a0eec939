"""Scores of a generator by the reference networks of a data set, which the stage `reference` has trained."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from hrvgan.errors import InputError
from hrvgan.evaluation.evaluate import Comparison, evaluate
from hrvgan.evaluation.gates import check_gates, verdict
from hrvgan.evaluation.memorisation import closeness, collapse_warnings
from hrvgan.evaluation.real_baseline import RealBaseline, halve_real, halved_by_group
from hrvgan.evaluation.sources import sample_chunks
from hrvgan.features import Features, load_features
from hrvgan.features.refnet import RefNet, featurise, load_refnet
from hrvgan.metrics.protocols import Protocol, of_extractor
from hrvgan.nn.base import VideoGAN
from hrvgan.progress import bar

TRIVIAL = ("noise", "mean", "one")  # Generators without skill.


def evaluate_refnet(
    gan: VideoGAN, reference: str | Path, *, draws: int = 5, seed: int = 0, num_clips: int | str = "auto",
    num_halvings: int = 10,
) -> tuple[dict, dict]:  # fmt: skip
    """(metrics, manifest) of `gan` by all protocols that the data allow, against the folder of stage `reference`.

    Metrics are numbers: the value of each protocol (mean over `draws` independent draws) with its sd, the scores of
    real clips in the place of generated ones, and "gated". A draw has as many clips as the real half that it is
    compared with, `num_clips` or ("auto") half of the split, and the labels of such a half.
    """
    check_numbers(draws, num_clips, num_halvings)
    net, info = load_refnet(reference)
    sets = load_features(Path(reference) / "features.npz")
    check_classes(gan, info)
    baseline = halve_real(sets, num_halvings, seed, None if num_clips == "auto" else num_clips)
    halves = [half for _, half in baseline.pairs]
    labels = [halves[i % num_halvings].labels for i in range(draws)]
    fakes = featurise_draws(gan, net, labels, info["clip_shape"], seed)
    real_digest = f"{info['data_digest']}:{baseline.split}"
    provenance = {"extractor_id": f"refnet-{info['id']}", "real_digest": real_digest}
    # Row k of a trivial set is of class k.
    trivial = [[sets[f"trivial_{name}"].take(half.labels) for half in halves] for name in TRIVIAL]
    clips = Comparison(baseline, fakes, provenance, trivial=trivial)
    protocols = [entry for entry in of_extractor("refnet") if defined(entry, info, gan)]
    metrics, entries, left_out = evaluate(protocols, lambda entry: clips)
    gates = verdict(check_gates(sets, seed))
    real = sets[baseline.split]
    manifest = describe_reference(info, baseline, real)
    manifest["notes"] += [f"{name} is left out: {reason}" for name, reason in left_out.items()]
    manifest["notes"] += collapse_warnings(baseline.real[0], fakes[0])
    manifest |= gates | {"protocols": entries, "num_draws": draws, "seed": seed}
    manifest["memorisation"] = closeness(fakes, real, sets["train"]) if baseline.split == "test" else None
    return metrics | {"gated": gates["gated"]}, manifest


def evaluate_networks(gan: VideoGAN, reference: str | Path, **arguments: int | str) -> tuple[dict, dict]:
    """`evaluate_refnet` by every network of the folder `reference`. The scores are those of the first; the manifest's
    "networks" has the values of each, by its id, "ungated_networks" the failed gates of those that have any."""
    folders = [Path(reference), *sorted(Path(reference).glob("network-*"))]
    results = [evaluate_refnet(gan, folder, **arguments) for folder in folders]
    networks = {
        manifest["extractor"]: {name: metrics[name]["value"] for name in manifest["protocols"]}
        for metrics, manifest in results
    }
    ungated = {manifest["extractor"]: manifest["ungated"] for _, manifest in results if not manifest["gated"]}
    metrics, manifest = results[0]
    return metrics, manifest | {"networks": networks, "ungated_networks": ungated}


def check_numbers(draws: int, num_clips: int | str, num_halvings: int) -> None:
    if draws < 2:
        raise InputError(f"evaluate.draws: {draws}, need at least 2 for a spread; 5 is usual")
    if num_clips != "auto" and (not isinstance(num_clips, int) or num_clips < 2):
        raise InputError(f"evaluate.num_clips: {num_clips!r}, need auto or a number of clips from 2 on")
    if num_halvings < 1:
        raise InputError(f"evaluate.num_halvings: {num_halvings}, need at least 1; 10 is usual")


def check_classes(gan: VideoGAN, info: dict) -> None:
    if gan.num_classes and list(gan.classes) != info["classes"]:
        made, known = ", ".join(gan.classes), ", ".join(info["classes"]) or "none"
        raise InputError(f"the model makes the classes {made}, the reference network was trained on {known}; "
                         "evaluate it on the data set that it was trained on")  # fmt: skip


def defined(protocol: Protocol, info: dict, gan: VideoGAN) -> bool:
    """Tells if the protocol has a meaning for this data set and generator."""
    labelled = info["labelled"] or not protocol.needs_labels
    return labelled and (gan.num_classes > 0 or not protocol.asks_labels)


def featurise_draws(
    gan: VideoGAN, net: RefNet, labels: list[np.ndarray], shape: list[int], seed: int
) -> list[Features]:
    """Features of one draw for each array of labels (N,), each with its own seed; memory holds one chunk of clips.

    Raises InputError for clips of another `shape` (T, H, W, 3) than the network knows.
    """

    def checked(asked: np.ndarray, number: int) -> Iterator[Tensor]:
        for videos in sample_chunks(gan, asked, [seed, number]):
            if (made := tuple(videos.shape[1:])) != tuple(shape):
                raise InputError(f"the model makes clips of {made}, the reference network knows {tuple(shape)}; "
                                 "evaluate it on clips of the shape that it was trained on")  # fmt: skip
            yield videos
            progress.update(len(videos))

    with bar(desc="draw clips", total=sum(map(len, labels)), unit="clip") as progress:
        return [
            Features(*featurise(net, checked(asked, number)), asked, np.arange(len(asked)).astype(str))
            for number, asked in enumerate(labels)
        ]


def describe_reference(info: dict, baseline: RealBaseline, real: Features) -> dict:
    """The part of a manifest that the network `info` and the real clips decide, with notes on how to read it."""
    n, width = baseline.num_clips, info["arguments"]["num_features"]
    by_group, num_groups = halved_by_group(real), len(np.unique(real.groups))
    notes = {
        "too few test clips: real clips are training clips, so nothing is said about new ones":
            baseline.split == "train",
        "one source video holds most real clips: halves share it, so floors are too low": not by_group,
        "few groups of real clips: floors are mostly how those groups differ": by_group and num_groups < 4,
        f"N = {n} is not above D = {width}: refnet_fd is mostly bias, read refnet_kid": n <= width,
        "the network learnt a pretext task, so refnet_is and refnet_acc do not exist": not info["labelled"],
    }  # fmt: skip
    return {
        "extractor": f"refnet-{info['id']}",
        "real": {"data_digest": info["data_digest"], "split": baseline.split},
        "num_real": n,
        "num_fake": n,
        "num_features": width,
        "clip_shape": info["clip_shape"],
        "resized_to_at_most": {key: info["arguments"][key] for key in ("max_size", "max_frames")},
        "num_halvings": len(baseline.pairs),
        "num_groups": num_groups,
        "halves": "by group" if by_group else "by clip",
        # Balanced halves and draws differ less than independent ones: for equal sets KID is then below zero.
        "labels": "those of a real half, which is balanced as the real clips are",
        "reference": info,
        "notes": [note for note, holds in notes.items() if holds],
    }
