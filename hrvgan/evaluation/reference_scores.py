"""Scores of a generator by the reference networks of a data set, which the stage `reference` has trained."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from hrvgan.errors import InputError
from hrvgan.evaluation.evaluate import Comparison, evaluate
from hrvgan.evaluation.gates import check_gates, verdict
from hrvgan.evaluation.memorisation import closeness, collapse_warnings
from hrvgan.evaluation.real_baseline import (
    RealBaseline,
    draw_substitutes,
    few_groups,
    halved_by_group,
    reference_baseline,
    shares,
)
from hrvgan.evaluation.sources import sample_chunks
from hrvgan.features import Features, load_features
from hrvgan.features.refnet import RefNet, featurise, load_refnet
from hrvgan.metrics.protocols import Protocol, of_extractor
from hrvgan.nn.base import VideoGAN
from hrvgan.progress import bar

NUM_FAKE = 2000  # Clips a draw: they cost seconds, and the bias of few is not the model's.
TRIVIAL = ("noise", "mean", "one")  # Generators without skill.


def evaluate_networks(
    gan: VideoGAN, reference: str | Path, *, draws: int = 5, seed: int = 0, num_clips: int | str = "auto",
    num_halvings: int = 10,
) -> tuple[dict, dict]:  # fmt: skip
    """(metrics, manifest) of `gan` by all protocols that the data allow, against the folder of stage `reference`.

    Metrics are numbers: the value of each protocol (mean over `draws` independent draws) with its sd, the scores of
    real clips in the place of generated ones, and "gated". A draw has `num_clips`, or ("auto") NUM_FAKE, and the labels
    of all test clips, in their shares; it is held against all of these.

    The scores are those of the folder's first network; the manifest's "networks" has the values of each, by its id,
    "ungated_networks" the failed gates of those that have any. All see the same clips.
    """
    check_numbers(draws, num_clips, num_halvings)
    folders = [Path(reference), *sorted(Path(reference).glob("network-*"))]
    networks = [(*load_refnet(folder), load_features(folder / "features.npz")) for folder in folders]
    baselines = []
    for _, info, sets in networks:
        check_classes(gan, info)
        baselines.append(reference_baseline(sets, num_halvings, seed))
    asked = shares(baselines[0].real.labels, NUM_FAKE if num_clips == "auto" else num_clips)
    fakes = featurise_draws(gan, [net for net, _, _ in networks], [asked] * draws, networks[0][1]["clip_shape"], seed)
    results = [
        score_network(gan, info, sets, baseline, drawn, seed)
        for (_, info, sets), baseline, drawn in zip(networks, baselines, fakes, strict=True)
    ]
    values = {
        manifest["extractor"]: {name: metrics[name]["value"] for name in manifest["protocols"]}
        for metrics, manifest in results
    }
    ungated = {manifest["extractor"]: manifest["ungated"] for _, manifest in results if not manifest["gated"]}
    metrics, manifest = results[0]
    return metrics, manifest | {"networks": values, "ungated_networks": ungated}


def score_network(
    gan: VideoGAN, info: dict, sets: dict[str, Features], baseline: RealBaseline, fakes: list[Features], seed: int
) -> tuple[dict, dict]:
    """(metrics, manifest) of `gan` by the network `info`: features `fakes` of its draws against those of real clips."""
    asked = fakes[0].labels
    if baseline.split == "test":
        labels = asked if gan.num_classes else None
        substitutes = draw_substitutes(sets["train"], labels, len(asked), len(fakes), seed)
        baseline = replace(baseline, substitutes=substitutes)
    real_digest = f"{info['data_digest']}:{baseline.split}"
    provenance = {"extractor_id": f"refnet-{info['id']}", "real_digest": real_digest}
    # Row k of a trivial set is of class k.
    trivial = [sets[f"trivial_{name}"].take(asked) for name in TRIVIAL]
    clips = Comparison(baseline, fakes, provenance, trivial=trivial)
    equal = clips.of_equal_numbers()
    protocols = [entry for entry in of_extractor("refnet") if defined(entry, info, gan)]
    metrics, entries, left_out = evaluate(
        protocols, lambda entry: clips if entry.num_real == "all" or not entry.uses_real else equal
    )
    gates = verdict(check_gates(sets, seed))
    manifest = describe_reference(info, baseline, gan, len(asked))
    manifest["notes"] += [f"{name} is left out: {reason}" for name, reason in left_out.items()]
    manifest["notes"] += collapse_warnings(baseline.real, fakes[0])
    manifest |= gates | {"protocols": entries, "num_draws": len(fakes), "seed": seed}
    held_out = baseline.split == "test"
    manifest["memorisation"] = closeness(fakes, baseline.real, sets["train"]) if held_out else None
    return metrics | {"gated": gates["gated"]}, manifest


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
    gan: VideoGAN, networks: list[RefNet], labels: list[np.ndarray], shape: list[int], seed: int
) -> list[list[Features]]:
    """For each network the features of one draw for each array of labels (N,), each with its own seed.

    Each clip is drawn once, and memory holds one chunk of them. Raises InputError for clips of another `shape`
    (T, H, W, 3) than the networks know.
    """
    draws = [[] for _ in networks]
    with bar(desc="draw clips", total=sum(map(len, labels)), unit="clip") as progress:
        for number, asked in enumerate(labels):
            chunks = [[] for _ in networks]
            for videos in sample_chunks(gan, asked, [seed, number]):
                if (made := tuple(videos.shape[1:])) != tuple(shape):
                    raise InputError(f"the model makes clips of {made}, the reference network knows {tuple(shape)}; "
                                     "evaluate it on clips of the shape that it was trained on")  # fmt: skip
                for net, own in zip(networks, chunks, strict=True):
                    own.append(featurise(net, [videos]))
                progress.update(len(videos))
            groups = np.arange(len(asked)).astype(str)
            for own, draw in zip(chunks, draws, strict=True):
                features, logits = map(np.concatenate, zip(*own, strict=True))
                draw.append(Features(features, logits, asked, groups))
    return draws


def describe_reference(info: dict, baseline: RealBaseline, gan: VideoGAN, num_fake: int) -> dict:
    """The part of a manifest that the network `info` and the real clips decide, with notes on how to read it."""
    real, width = baseline.real, info["arguments"]["num_features"]
    n, by_group, few = min(len(real), num_fake), halved_by_group(real), few_groups(real)
    num_groups = len(np.unique(real.groups))
    free = bool(info["labelled"] and not gan.num_classes)
    notes = {
        "too few test clips: real clips are training clips, so nothing is said about new ones":
            baseline.split == "train",
        "one source video holds most real clips: halves share it, so their scores are too low": not by_group,
        f"few groups of real clips ({num_groups}): all halvings are the same few, so their spread is unknown, and "
        "their scores are mostly how those groups differ": few,
        f"N = {n} is not above D = {width}: refnet_fd is mostly bias, read refnet_kid": n <= width,
        "the network learnt a pretext task, so refnet_is and refnet_acc do not exist": not info["labelled"],
        "the model takes no class: floors are of training clips whose classes are drawn by chance, too": free,
    }  # fmt: skip
    return {
        "extractor": f"refnet-{info['id']}",
        "real": {"data_digest": info["data_digest"], "split": baseline.split},
        "num_real": len(real),
        "num_fake": num_fake,
        "num_features": width,
        "clip_shape": info["clip_shape"],
        "resized_to_at_most": {key: info["arguments"][key] for key in ("max_size", "max_frames")},
        "num_halvings": len(baseline.pairs),
        "num_groups": num_groups,
        "few_groups": few,
        "halves": "by group" if by_group else "by clip",
        # Classes in fixed shares vary less than independent clips: for equal sets KID is then below zero.
        "labels": "the model's own" if free else "in the shares of the real clips",
        "reference": info,
        "notes": [note for note, holds in notes.items() if holds],
    }
