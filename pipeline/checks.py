"""Check all of params.yaml before anything runs. DVC's own errors only name a missing file.

python -m pipeline.checks
"""

import argparse
import inspect
from collections.abc import Iterable
from pathlib import Path

import torch

from hrvgan.clipstore.writer import COMPRESSIONS
from hrvgan.datasets import load_source
from hrvgan.errors import InputError, one_sentence
from hrvgan.extraction.cut import SHORT
from hrvgan.extraction.extract import extract
from hrvgan.extraction.splits import assign_splits
from hrvgan.features.extractors import EXTRACTORS
from hrvgan.features.reference import build_reference
from hrvgan.metrics import PROTOCOLS
from hrvgan.models import build_model, model_class
from hrvgan.nn.base import VideoGAN
from hrvgan.sampling.samples import write_samples
from hrvgan.training.loop import check_settings, train
from pipeline import params
from pipeline.evaluate import evaluate_model
from pipeline.report import render
from pipeline.train import SETTABLE, require_reference

# Section -> function whose keyword-only arguments it holds.
FUNCTIONS = {"reference": build_reference, "report": render}
FUNCTIONS_OF_RUNS = {"train": SETTABLE, "sample": write_samples, "evaluate": evaluate_model}


def check() -> None:
    """Raises InputError for the first name, key, type, size or file of params.yaml that would make a stage fail."""
    values = params.load()
    for name in values["datasets"]:
        check_dataset(name, params.dataset(name))
    for name in values["runs"]:
        check_run(name, params.run(name), list(values["runs"]))
    check_order({name: params.run(name)["init_from"] for name in values["runs"]})
    for section, function in FUNCTIONS.items():
        params.accept(function, values[section], section)


def one_of(where: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise InputError(f"{params.FILE}: {where}: {name!r} is not known; choose of {', '.join(known)}")


def check_dataset(name: str, config: dict) -> None:
    with params.blamed(f"datasets.{name}.source"):
        source = load_source(config["source"])
    params.accept(source.fetch, config["options"], f"datasets.{name}.options")
    where, clips = f"extract or datasets.{name}.clips", {**extract.__kwdefaults__, **config["clips"]}
    params.accept(extract, config["clips"], where)
    one_of(f"{where}: short", clips["short"], SHORT)
    one_of(f"{where}: compression", clips["compression"], COMPRESSIONS)
    with params.blamed(where):
        assign_splits([], val_fraction=clips["val_fraction"], test_fraction=clips["test_fraction"])
    params.require_watched(name, config)


def check_run(name: str, config: dict, runs: list[str]) -> None:
    for section, function in FUNCTIONS_OF_RUNS.items():
        params.accept(function, config[section], f"{section} or runs.{name}.{section}")
    check_classes(name, config)
    published = [protocol for protocol, about in PROTOCOLS.items() if about.extractor in EXTRACTORS]
    # Unchecked, an error would show only after training.
    for protocol in config["evaluate"].get("protocols") or []:
        one_of(f"evaluate.protocols or runs.{name}.evaluate.protocols", protocol, published)
    gan = check_model(name, config)
    with params.blamed(f"train or runs.{name}.train"):
        check_settings(gan, {**train.__kwdefaults__, **config["train"]})
        params.device(config)
    require_reference(name, config)
    start, others = Path(config["init_from"]), [Path("models", run) for run in runs if run != name]
    if start not in others and not start.exists():
        raise InputError(
            f"{params.FILE}: runs.{name}.init_from: {start} is not there; give hrvgan/models/{config['model']}.py to "
            f"draw new weights, or the model of another run: {', '.join(map(str, others)) or 'none is active'}"
        )


def check_classes(name: str, config: dict) -> None:
    """Raises InputError for a class in sample.classes that the data set does not have, where its classes are known."""
    dataset = params.dataset(config["dataset"])
    source = load_source(dataset["source"])
    if config["sample"].get("classes") and hasattr(source, "class_names"):
        with params.blamed(f"datasets.{config['dataset']}.options"):
            known = source.class_names(**dataset["options"])
        for wanted in config["sample"]["classes"]:
            one_of(f"sample.classes or runs.{name}.sample.classes", wanted, known)


def check_order(starts: dict[str, str]) -> None:
    """starts: run -> its init_from. Raises InputError if runs start from one another in a circle."""
    for name in starts:
        chain = [name]
        while (start := Path(starts[chain[-1]])).parent == Path("models") and start.name in starts:
            if start.name in chain:
                circle = " <- ".join([*chain[chain.index(start.name) :], start.name])
                raise InputError(
                    f"{params.FILE}: runs.{start.name}.init_from: {circle} is a circle; let one draw new weights"
                )
            chain.append(start.name)


def check_model(name: str, config: dict) -> VideoGAN:
    """Build the model as `train` does, on the meta device."""
    clips = {**extract.__kwdefaults__, **params.dataset(config["dataset"])["clips"]}
    with params.blamed(f"runs.{name}"):
        taken = inspect.signature(model_class(config["model"])).parameters
        shape = {key: clips[key] for key in ("size", "num_frames") if key in taken}
        with torch.device("meta"):
            gan = build_model(config["model"], preset=config["preset"], **{**shape, **config["net"]})
    if gan.size != clips["size"] or gan.num_frames > clips["num_frames"]:
        raise InputError(
            f"{params.FILE}: runs.{name}: the model makes {gan.num_frames} frames of {gan.size} px, but extract or "
            f"datasets.{config['dataset']}.clips cuts {clips['num_frames']} frames of {clips['size']} px; set size "
            "there to the same, and num_frames to as many or more"
        )
    return gan


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m pipeline.checks", description="Report errors of params.yaml before anything runs."
    ).parse_args()
    with one_sentence():
        check()
    print(params.active())


if __name__ == "__main__":
    main()
