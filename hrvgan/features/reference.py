"""The reference of a data set: a network trained on its real clips, and the features of these and of perturbed ones.

No metric is computed here: `hrvgan/evaluation/` does that, so that a change of a metric trains no network.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from hrvgan.clipstore.clips import SPLITS, Clips
from hrvgan.errors import InputError
from hrvgan.features import Features, save_features
from hrvgan.features.perturbations import PERTURBATIONS, colours_apart, half_speed, shuffled
from hrvgan.features.refnet import RefNet, Task, batch_size_for, calibrate, changes, featurise, fit, save_refnet
from hrvgan.progress import bar

GAIN_OF, MOST_GAIN = 64, 50.0
DETAIL_GAIN = 3.0
COLOURS_OF, COLOURS_APART = 64, 2.0
# How far a fault of strength 1 may move features, as a share of their root mean square: without several
# colours in an object, and with. Real footage varies more by itself; with a quarter, ghosts and shuffled frames
# of people were lost in it.
MOST_MOVE = (0.25, 0.5)
MEAN_OF = 32  # Clips in the mean clip of a class: enough for a blur, few enough for memory.


def build_reference(
    clips: Clips, out: Path, *, seed: int = 0, networks: int = 1, steps: int = 600, batch_size: int = 20,
    lr: float = 3e-3, sketch_weight: float = 0.5, fault_weight: float = 3.0, num_features: int = 32,
    width: int = 16, max_size: int = 32, max_frames: int = 16,
) -> dict:
    """Fill the folder `out`: refnet.safetensors, refnet.json (returned), features.npz. Deterministic by `seed`.

    The network learns the classes of the training clips or, without two classes or without val clips, a pretext task
    on the clips' time axis; weighted by `sketch_weight`, to sketch the clip; and, by `fault_weight`, to say how
    strong a fault of generators is: each of the `batch_size` clips of a step comes again with one. It is
    calibrated on val clips. Clips larger than `max_size` pixels are shrunk, longer ones than `max_frames` thinned. With
    `networks` above 1 the folders network-1, ... hold as many more, of the next seeds: their agreement says how far to
    trust one.
    """
    training = {"steps": steps, "batch_size": batch_size, "lr": lr, "sketch_weight": sketch_weight,
                "fault_weight": fault_weight}
    shape = {"num_features": num_features, "width": width, "max_size": max_size, "max_frames": max_frames}
    for name, number in {**training, **shape, "networks": networks}.items():
        if number <= 0 and not name.endswith("_weight"):
            raise InputError(f"reference.{name}: {number}, need more than 0")
    if not len(clips.split("train")):
        raise InputError(f"{clips.folder}: no training clips; extract more videos or change the splits")
    folders = [out, *(out / f"network-{number}" for number in range(1, networks))]
    infos = [build_network(clips, folder, seed + n, training, shape) for n, folder in enumerate(folders)]
    return infos[0]


def build_network(clips: Clips, out: Path, seed: int, training: dict, shape: dict) -> dict:
    """One network, its features and its refnet.json."""
    splits = {name: clips.split(name) for name in SPLITS}
    labelled = len(np.unique(splits["train"].labels)) > 1 and len(splits["val"]) > 0
    make_task, answers = (label_task, clips.classes) if labelled else (pretext_task, list(PRETEXT))
    tasks = {name: make_task(split) for name, split in splits.items()}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # Time is all that the pretext task asks about; with labels, colours alone do and see noise better.
        net = RefNet(len(answers), **shape, motion=not labelled, detail_gain=DETAIL_GAIN)
        net.to("cuda" if torch.cuda.is_available() else "cpu")
        if net.gain is not None:
            net.gain.fill_(motion_gain(net, splits["train"]))
        coloured = several_colours(splits["val"])
        fit(net, tasks["train"], len(splits["train"]), seed=seed, most_move=MOST_MOVE[coloured], **training)
    set_units(net, splits, tasks, seed)
    exams = {name: examine(net, splits[name], tasks[name], seed) for name in SPLITS if len(splits[name])}
    sets = feature_sets(net, splits, seed)
    if coloured:  # Then two colours are no fault.
        sets["two-coloured"] = sets["two-coloured"].take([])
    save_features(out / "features.npz", sets | {"exam": exams.get("val", exams["train"].take([]))})
    return save_refnet(
        net, out, labelled=labelled, classes=clips.classes, answers=answers, clip_shape=list(clips.shape),
        num_clips={name: len(split) for name, split in splits.items()},
        accuracy={name: float((exam.logits.argmax(1) == exam.labels).mean()) for name, exam in exams.items()},
        temperature=float(net.temperature), training={"seed": seed, **training}, data_digest=clips.digest,
    )


@torch.inference_mode()
def motion_gain(net: RefNet, train: Clips) -> float:
    """Factor that scales frame-to-frame changes to a root mean square of a half, at most 50."""
    rows = np.linspace(0, len(train) - 1, min(len(train), GAIN_OF)).astype(int)
    video = net.prepare(torch.as_tensor(train.read(rows), device=net.rms.device))
    rms = changes(video).square().mean().sqrt().nan_to_num().item()  # Clips of one frame change nothing.
    return min(MOST_GAIN, 0.5 / max(rms, 1e-6))


def set_units(net: RefNet, splits: dict[str, Clips], tasks: dict[str, Task], seed: int) -> None:
    """Scale the training features to a root mean square of 1, and calibrate the confidence on val clips."""
    features, _ = featurise(net, batches(splits["train"]))
    net.rms.fill_(float(np.sqrt(np.square(features, dtype=np.float64).mean())) or 1.0)
    if len(splits["val"]):
        exam = examine(net, splits["val"], tasks["val"], seed)
        net.temperature.fill_(calibrate(exam.logits, exam.labels))


# Tasks.

def label_task(clips: Clips) -> Task:
    """Classification by label."""
    return lambda rng, rows: (clips.read(rows), clips.labels[rows])


def pretext_task(clips: Clips) -> Task:
    """Classification of frame order and playback speed, which needs no labels."""
    transforms = list(PRETEXT.values())

    def examples(rng: np.random.Generator, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        answers = rng.permutation(np.arange(len(rows)) % len(transforms))
        pairs = zip(answers, clips.read(rows), strict=True)
        return np.stack([transforms[answer](clip[None], rng)[0] for answer, clip in pairs]), answers

    return examples


def examine(net: RefNet, clips: Clips, task: Task, seed: int) -> Features:
    """Answers of the network to `task` on `clips`; the labels are the right answers."""
    rng, answers = np.random.default_rng(seed), []

    def questions() -> Iterator[np.ndarray]:
        for rows in row_batches(clips):
            question, answer = task(rng, rows)
            answers.append(answer)
            yield question

    features, logits = featurise(net, questions())
    return Features(features, logits, np.concatenate(answers), groups(clips))


# Sets of clips.

def feature_sets(net: RefNet, splits: dict[str, Clips], seed: int) -> dict[str, Features]:
    """Features of the real clips, of perturbed val clips and of trivial generators' clips, by name."""
    jobs = [(name, split, None) for name, split in splits.items()]
    jobs += [(name, splits["val"], perturb) for name, perturb in PERTURBATIONS.items()]
    sets = {}
    for name, split, perturb in bar(jobs, "features", unit="set"):
        stream = batches(split, perturb, np.random.default_rng(seed))
        sets[name] = Features(*featurise(net, stream), split.labels, groups(split))
    for name, trivial in trivial_clips(splits["train"], seed).items():
        labels = np.arange(len(trivial))
        sets[f"trivial_{name}"] = Features(*featurise(net, trivial[:, None]), labels, labels.astype(str))
    return sets


def several_colours(clips: Clips) -> bool:
    """Tells if objects in real clips have colours of their own as far apart as those of two objects, as people have."""
    rows = np.linspace(0, len(clips) - 1, min(len(clips), COLOURS_OF)).astype(int)
    return bool(len(clips)) and colours_apart(clips.read(rows)) < COLOURS_APART


def trivial_clips(train: Clips, seed: int) -> dict[str, np.ndarray]:
    """One clip a class, uint8 (K, T, H, W, 3), for each generator without skill, which repeats it."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(train.labels == label) for label in range(max(1, train.num_classes))]
    rows = [own if len(own) else np.arange(len(train)) for own in rows]
    means = [train.read(rng.permutation(own)[:MEAN_OF]).mean(axis=0).round().astype(np.uint8) for own in rows]
    return {
        "noise": rng.integers(256, size=(len(rows), *train.shape), dtype=np.uint8),
        "mean": np.stack(means),
        "one": np.stack([train[int(rng.choice(own))] for own in rows]),
    }


def batches(
    clips: Clips, perturb: Callable | None = None, rng: np.random.Generator | None = None
) -> Iterator[np.ndarray]:
    for rows in row_batches(clips):
        yield perturb(clips.read(rows), rng) if perturb else clips.read(rows)


def row_batches(clips: Clips) -> list[np.ndarray]:
    size = batch_size_for(clips.shape)
    return np.split(np.arange(len(clips)), range(size, len(clips), size)) if len(clips) else []


def groups(clips: Clips) -> np.ndarray:
    return np.array(clips.index["group"].to_pylist(), dtype=str)


PRETEXT = {"forward": lambda clips, rng: clips, "shuffled": shuffled, "half speed": half_speed}
