"""Command line `hrvgan`: models and clips without the pipeline. Each command imports what it needs when it runs."""

import argparse
import contextlib
import inspect
import json
import os
import sys
import tempfile
import types
import typing
from collections.abc import Callable
from pathlib import Path

import hrvgan
from hrvgan.cli import sample, score
from hrvgan.config import check_values, pick_device, yaml_dict
from hrvgan.errors import InputError, one_sentence
from hrvgan.ops.allocator import keep_freed_memory


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="hrvgan", description="Conditional spatio-temporal GANs that generate video.")
    parser.add_argument("--version", action="version", version=f"hrvgan {hrvgan.__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)
    for function, (help, words) in COMMANDS.items():
        add_command(commands, function, help, words)
    about = "look at a clip store, check it, or convert it"
    clips = commands.add_parser("clips", help=about, description=f"{about[0].upper()}{about[1:]}.")
    commands_of_clips = clips.add_subparsers(metavar="command", required=True)
    for function, (help, words) in CLIPS.items():
        add_command(commands_of_clips, function, help, words)
    arguments = vars(parser.parse_args(argv))
    command = arguments.pop("command")
    keep_freed_memory()
    try:
        with one_sentence():
            check_values("--", command, arguments)
            if "device" in arguments:
                arguments["device"] = str(pick_device(arguments["device"]))
            command(**arguments)
            sys.stdout.flush()
    except BrokenPipeError:  # `hrvgan info | head`: the reader closed the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt as stop:  # A training says from which step it goes on.
        sys.stderr.write("\n" + "; ".join(["stopped", *stop.args]) + "\n")
        sys.exit(130)


def add_command(commands, function: Callable, help: str, words: dict[str, str | dict]) -> None:
    """Add `function` as a command with the arguments of its signature: keyword-only ones are options, of which those of
    type dict or list may be left out. words: argument -> its help, or the options of `add_argument`, beside those of
    `WORDS`."""
    parser = commands.add_parser(function.__name__.rstrip("_"), help=help, description=function.__doc__)
    words = WORDS | words
    for name, parameter in inspect.signature(function).parameters.items():
        kind = parameter.annotation
        if isinstance(kind, types.UnionType):  # X | None
            kind = typing.get_args(kind)[0]
        container = typing.get_origin(kind) or kind
        (element,) = typing.get_args(kind) or [kind]
        options = {"type": yaml_dict if kind is dict else element}
        options |= {"help": words[name]} if isinstance(words.get(name), str) else words.get(name, {})
        if parameter.kind is not parameter.KEYWORD_ONLY:
            optional = parameter.default is not parameter.empty
            parser.add_argument(name, **({"nargs": "?"} if optional else {}), **options)
            continue
        flag = "--class" if name == "class_name" else f"--{name.replace('_', '-')}"
        if parameter.default is not parameter.empty:
            options["default"] = parameter.default
            if parameter.default not in ("", None):
                options["help"] += f" (default {parameter.default})"
        elif container in (dict, list):
            options["default"] = container()
        else:
            options["required"] = True
        parser.add_argument(flag, dest=name, **options)
    parser.set_defaults(command=function)


def train(
    clips: Path, out: Path, *, model: str = "hrvgan", preset: str = "", net: dict, train: dict, seed: int = 0,
    init_from: str = "", reference: Path | None = None,
) -> None:  # fmt: skip
    """Train on the training split of CLIPS and release the model to OUT. The same command resumes. Under
    `torchrun --nproc-per-node=N -m hrvgan.cli train ...` N processes share each batch."""
    from hrvgan.clipstore.clips import Clips
    from hrvgan.evaluation.snapshots import snapshot_score
    from hrvgan.files import locked
    from hrvgan.nn.checkpoint import check_out, release
    from hrvgan.training import distributed, loop
    from hrvgan.training.session import new_model, read_state

    require_known("--train", train, loop.SETTINGS)
    check_out(out)
    store, first = Clips(clips), distributed.rank() == 0
    gan = new_model(store, model, preset=preset, net=net, seed=seed, init_from=init_from)
    score = snapshot_score(gan, reference) if reference else None
    state, lock = out.with_name(f"{out.name}.state.pt"), out.with_name(f".{out.name}.lock")
    if first and (done := read_state(state, "step", 0)):
        print(f"{state}: going on from step {done}", file=sys.stderr)
    with locked(lock, f"training of {out}") if first else contextlib.nullcontext():
        average, history = loop.train(gan, store.split("train"), state, seed=seed, score=score, **train)
        if first:
            data = {"dataset": clips.name, "data_digest": store.digest} | loop.kept_step(history, train.get("keep"))
            release(out, gan, average, history, data)
            print(f"{out}: released after {history[-1]['step']} steps; {state} continues it with more")


def require_known(option: str, values: dict, known: typing.Iterable[str]) -> None:
    for key in values:
        if key not in known:
            raise InputError(f"{option}: no argument {key!r}; known: {', '.join(known)}")


def info(
    folder: Path | None = None, *, model: str = "", preset: str = "", net: dict, batch_size: int = 16,
    precision: str = "float32",
) -> None:  # fmt: skip
    """Print each layer of G and D with its output shape (C, T, H, W) and its number of parameters, what a clip costs in
    each, and what a training step takes in memory; of the released model in FOLDER also what it was trained on."""
    from hrvgan.models import build_model, load
    from hrvgan.nn.checkpoint import released_folder
    from hrvgan.nn.cost import layer_table, process_bytes

    if folder and (model or preset or net):
        raise InputError(f"{folder}: is a model already; leave out --model, --preset and --net, or the folder")
    gan = load(folder) if folder else build_model(model or "hrvgan", preset=preset, **net)
    print(f"{gan.name}: {gan.num_frames} frames of {gan.size}x{gan.size} px, {gan.num_classes or 'no'} classes")
    if folder:
        about = json.loads((released_folder(folder) / "model.json").read_text(encoding="utf-8"))
        print(f"trained for {about['steps']:,} steps on {about['dataset']} (clips {about['data_digest'][:12]})")
        print(f"classes: {', '.join(gan.classes) or 'none'}; {gan.fps:g} frames a second")
        print(f"arguments: {about['arguments']}")
    print(layer_table(gan))
    gigabytes = process_bytes(gan, batch_size, precision) / 1e9
    print(f"training in {precision}, {batch_size} clips a step: about {gigabytes:.2g} GB besides the libraries")


def extract(folder: Path, store: Path, *, extract: dict) -> None:
    """Cut the videos in FOLDER, which stays as it is, into clips and write the clip store STORE. The arguments are
    those of section `extract` of params.yaml; without them clips are 16 frames of 64 px."""
    from hrvgan.clipstore.clips import INDEX
    from hrvgan.datasets.folder import fetch
    from hrvgan.extraction import extract as extraction
    from hrvgan.extraction.videos import write_videos_csv

    require_known("--extract", extract, extraction.extract.__kwdefaults__)
    check_values("--extract: ", extraction.extract, extract)
    if store.exists() and not (store / INDEX).exists() and (store.is_file() or any(store.iterdir())):
        raise InputError(f"{store}: is there already and no clip store; name a new folder, or remove it")
    with tempfile.TemporaryDirectory() as raw:  # The list of videos; it is made anew each time.
        write_videos_csv(Path(raw) / "videos.csv", fetch(Path(raw), path=folder), extract.get("dask", ""))
        counts = extraction.extract(raw, store, **extract)
    print(f"{store}: " + ", ".join(f"{count} {name}" for name, count in counts.items() if count))


def show(store: Path, file: Path | None = None) -> None:
    """Print a summary of STORE and write FILE, a picture of some clips of each class."""
    from hrvgan.clipstore.clips import Clips
    from hrvgan.clipstore.contact_sheet import contact_sheet, summary
    from hrvgan.video.grids import write_legend

    clips, file = Clips(store), file or Path(f"{store.name}.png")
    print(summary(clips))
    contact_sheet(clips, file)
    print(file)
    if path := write_legend(file, clips.classes, clips.classes):
        print(path)


def check(store: Path) -> None:
    """Read every clip of STORE and compare it with the digest that was written with it."""
    from hrvgan.clipstore.clips import Clips

    clips = Clips(store)
    if damaged := clips.damaged():
        raise InputError(f"{store}: {len(damaged)} damaged clips, {damaged[0]} first; extract the data set again")
    print(f"{store}: {len(clips)} clips are as they were written")


def export(store: Path, file: Path) -> None:
    """Write STORE to FILE, an .npz for programs that know numpy only."""
    from hrvgan.clipstore.clips import Clips
    from hrvgan.clipstore.writer import export_npz

    export_npz(Clips(store), file)
    print(file)


def import_(store: Path, file: Path) -> None:
    """Write STORE from FILE, an .npz of `hrvgan clips export` or of `hrvgan sample`."""
    from hrvgan.clipstore.writer import import_npz

    import_npz(file, store)
    print(store)


def push(folder: Path, name: str) -> None:
    """Upload the released model in FOLDER to the Hugging Face Hub as NAME. A new repository is private: whether a model
    may be shown is a matter of the data it was trained on."""
    from hrvgan import hub

    print(hub.push(folder, name))


def pull(name: str, out: Path) -> None:
    """Write the released model NAME of the Hugging Face Hub to the folder OUT."""
    from hrvgan import hub

    hub.pull(name, out)
    print(out)


# Help of arguments that several commands have.
WORDS = {"seed": "of all that is random", "device": "auto, cpu, cuda or cuda:1; auto is a GPU where there is one"}
MODELS = "hrvgan, vgan, tgan or mocogan"
PRESET = "arguments by name; the model's own defaults without"
STORE = "a clip store, such as data/clips/shapes"
# Command -> (its help, help of its arguments), in the order of `hrvgan --help`.
COMMANDS: dict[Callable, tuple[str, dict]] = {
    train: ("train a model on a clip store", {
        "clips": STORE,
        "out": "folder of the released model",
        "model": MODELS,
        "preset": PRESET,
        "net": "arguments of the model, e.g. '{width: 0.25}'",
        "train": "arguments of training, e.g. '{steps: 4000}'",
        "init_from": "folder of a released model whose weights to start from",
        "reference": "folder of stage `reference`, whose network scores every train.score_every steps",
    }),
    **sample.COMMANDS,
    **score.COMMANDS,
    info: ("the layers of a model, and what it costs", {
        "folder": "a released model, such as models/laptop or shapes-32; without it, one that is not trained",
        "model": f"{MODELS}; hrvgan if not given",
        "preset": PRESET,
        "net": "arguments of the model, e.g. '{size: 256}'",
        "batch_size": "for the memory that training takes",
        "precision": "likewise; or bfloat16",
    }),
    extract: ("cut a folder of videos into a clip store", {
        "folder": "videos; their folders are classes, or splits and classes",
        "store": "clip store to write; the same command again continues or updates it",
        "extract": "arguments of extraction, e.g. '{size: 64, num_frames: 16}'",
    }),
    push: ("put a model on the Hugging Face Hub", {
        "folder": "a released model, such as models/laptop",
        "name": "org/name",
    }),
    pull: ("get a model from the Hugging Face Hub", {
        "name": "org/name, or org/name@revision",
        "out": "folder to write",
    }),
}  # fmt: skip
# Those of `hrvgan clips`.
CLIPS: dict[Callable, tuple[str, dict]] = {
    show: ("print a summary, and write a picture of its clips", {
        "store": STORE,
        "file": "picture to write; <store>.png by default",
    }),
    check: ("compare every clip with its digest", {"store": STORE}),
    export: ("write it to an .npz", {"store": STORE, "file": "the .npz to write"}),
    import_: ("write it from an .npz", {"store": "clip store to write", "file": "the .npz to read"}),
}  # fmt: skip
