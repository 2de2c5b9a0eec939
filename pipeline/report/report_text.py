"""What was trained on what, in terms and words: facts that the files themselves hold."""

import math
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from safetensors import safe_open

from hrvgan.clipstore.clips import SPLITS, Clips
from hrvgan.files import file_digest
from pipeline.report.run_results import Findings

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
TIMES = "\N{MULTIPLICATION SIGN}"
SHORT = 12  # characters of a digest: enough to find it, few enough to read


def overview(runs: list[Findings]) -> str:
    """The whole page in a sentence."""
    models = {run.settings["model"] for run in runs}
    datasets = {run.dataset for run in runs}
    what = f"{_count(runs, 'training run')} of {_count(models, 'model')} on {_count(datasets, 'data set')}."
    return what[0].upper() + what[1:]


def _count(things: Collection, name: str) -> str:
    number = NUMBERS[len(things)] if len(things) < len(NUMBERS) else str(len(things))
    return f"{number} {name}{'' if len(things) == 1 else 's'}"


def deck(run: Findings) -> str:
    """One run in a sentence."""
    model, about = run.settings["model"], run.model
    if about is None:
        return f"{model} on {run.dataset}, not trained yet."
    frames, height, width, _ = about["clip_shape"]
    asked = f" of the class it is asked for, one of {len(about['classes'])}" if about["classes"] else ""
    return (
        f"{model}, trained for {about['steps']:,} steps on {run.dataset}, "
        f"makes {frames} frames of {width} {TIMES} {height} px{asked}."
    )


def facts(run: Findings, clips: Clips | None) -> list[tuple[str, str]]:
    """(term, words) in reading order; what is not known yet is left out."""
    return [*_model_facts(run), *_data_facts(run, clips), *_digests(run, clips)]


def _model_facts(run: Findings) -> list[tuple[str, str]]:
    settings = run.settings
    preset = f"preset {settings['preset']}" if settings["preset"] else ""
    given = [f"{key} {value}" for key, value in settings["net"].items()]
    found = [("Model", ", ".join(filter(None, [settings["model"], preset, *given])))]
    if run.model:
        batch = settings["train"].get("batch_size")
        each = f" of {batch} clips" if batch else ""
        found.append(("Training", f"{run.model['steps']:,} steps{each}, seed {settings['seed']}"))
    for name, file in (("Generator", "model.safetensors"), ("Discriminator", "discriminator.safetensors")):
        if (run.folder / file).is_file():
            found.append((name, f"{count_parameters(run.folder / file):,} parameters"))
    return found


def _data_facts(run: Findings, clips: Clips | None) -> list[tuple[str, str]]:
    if clips is None:
        return [("Data set", run.dataset)]
    frames, height, width, _ = clips.shape
    videos = len(set(clips.index["video_id"].to_pylist()))
    splits = Counter(clips.index["split"].to_pylist())
    return [
        ("Data set", f"{run.dataset}: {len(clips):,} clips from {videos:,} videos"),
        ("Split by source", ", ".join(f"{splits[name]:,} {name}" for name in SPLITS if splits[name])),
        ("Clips", f"{frames} frames of {width} {TIMES} {height} px at {clips.fps:g} fps"),
        ("Classes", ", ".join(clips.classes) or "none"),
    ]


def _digests(run: Findings, clips: Clips | None) -> list[tuple[str, str]]:
    """Of what was trained on and what came out: equal digests, equal bytes."""
    weights = run.folder / "model.safetensors"
    found = [("Clips' digest", clips.digest)] if clips else []
    found += [("Weights' digest", file_digest(weights))] if weights.is_file() else []
    return [(term, f"sha256 {digest[:SHORT]}…") for term, digest in found]


def count_parameters(path: Path) -> int:
    """Numbers in a safetensors file but for the running statistics of batch norms; reads its header only."""
    with safe_open(path, "np") as file:
        names = file.keys()  # No dict: it cannot be iterated over.
        learnt = [name for name in names if name.rpartition(".")[2] not in STATISTICS]
        return sum(math.prod(file.get_slice(name).get_shape()) for name in learnt)


def protocol(run: Findings) -> str:
    """How the scores came about, as far as the manifest says."""
    about = run.manifest
    if about is None:
        return f"How these were measured is not known: metrics/{run.name}.manifest.json is missing."
    if "context" in about:
        return (
            f"{about['num_real']} {about['real']['split']} clips: the model saw the first {about['context']} frames "
            f"of each and drew the rest {about['num_draws']} times. ± is the standard deviation over the draws."
        )
    right = about["reference"]["accuracy"].get("val")
    trust = f" and knows {right:.1%} of held-out clips" if right is not None else ""
    return (
        f"{about['num_draws']} draws of {about['num_fake']} generated clips, each held against "
        f"{about['num_real']} real {about['real']['split']} clips by the reference network "
        f"{about['extractor']:.15}, which was trained on real training clips{trust}. "
        "± is the standard deviation over the draws. "
        "Without skill: the best of three that repeat noise, the mean clip, or one training clip of each class."
    )
