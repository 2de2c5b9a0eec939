"""Command line `hrvgan`: models and clips without the pipeline. Each command imports what it needs when it runs."""

import argparse
import contextlib
import os
import sys
from pathlib import Path

from hrvgan.cli import clips, score
from hrvgan.cli import sample as draw
from hrvgan.config import check_values, pick_device, yaml_dict
from hrvgan.errors import InputError, one_sentence
from hrvgan.ops.allocator import keep_freed_memory


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="hrvgan", description="Conditional spatio-temporal GANs that generate video."
    )
    commands = parser.add_subparsers(metavar="command", required=True)
    drawing = draw.add_sample, draw.add_interpolate, draw.add_predict
    scoring = score.add_score, score.add_compare, score.add_weights
    for add in (add_train, *drawing, *scoring, add_info, clips.add_extract, clips.add_clips):
        add(commands)
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


def add_train(commands) -> None:
    parser = commands.add_parser("train", help="train a model on a clip store", description=train.__doc__)
    parser.add_argument("clips", type=Path, help="a clip store, such as data/clips/shapes")
    parser.add_argument("out", type=Path, help="folder of the released model")
    parser.add_argument("--model", default="hrvgan")
    parser.add_argument("--preset", default="", help="arguments by name; the model's own defaults without")
    parser.add_argument(
        "--net", default={}, type=yaml_dict, help="arguments of the model, e.g. '{width: 0.25}'"
    )
    parser.add_argument(
        "--train", default={}, type=yaml_dict, help="arguments of training, e.g. '{steps: 4000}'"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--init-from", default="", help="folder of a released model whose weights to start from"
    )
    parser.set_defaults(command=train)


def train(
    clips: Path, out: Path, model: str, preset: str, net: dict, train: dict, seed: int, init_from: str
) -> None:
    """Train on the training split of CLIPS and release the model to OUT. The same command resumes. Under
    `torchrun --nproc-per-node=N -m hrvgan.cli train ...` N processes share each batch."""
    from hrvgan.clipstore.clips import Clips
    from hrvgan.files import locked
    from hrvgan.nn.checkpoint import check_out, release
    from hrvgan.training import distributed, loop
    from hrvgan.training.session import new_model

    for key in train:
        if key not in loop.SETTINGS:
            raise InputError(f"--train: no argument {key!r}; known: {', '.join(loop.SETTINGS)}")
    check_out(out)
    store, first = Clips(clips), distributed.rank() == 0
    gan = new_model(store, model, preset=preset, net=net, seed=seed, init_from=init_from)
    state, lock = out.with_name(f"{out.name}.state.pt"), out.with_name(f".{out.name}.lock")
    with locked(lock, f"training of {out}") if first else contextlib.nullcontext():
        average, history = loop.train(gan, store.split("train"), state, seed=seed, **train)
        if first:
            release(out, gan, average, history, {"dataset": clips.name, "data_digest": store.digest})
            print(f"{out}: released after {history[-1]['step']} steps; {state} continues it with more")


def add_info(commands) -> None:
    parser = commands.add_parser(
        "info", help="the layers of a model, and what it costs", description=info.__doc__
    )
    parser.add_argument("--model", default="hrvgan")
    parser.add_argument("--preset", default="", help="arguments by name; the model's own defaults without")
    parser.add_argument(
        "--net", default={}, type=yaml_dict, help="arguments of the model, e.g. '{size: 256}'"
    )
    parser.add_argument("--batch-size", type=int, default=16, help="for the memory that training takes")
    parser.add_argument("--precision", default="float32", help="likewise; or bfloat16")
    parser.set_defaults(command=info)


def info(model: str, preset: str, net: dict, batch_size: int, precision: str) -> None:
    """Print each layer of G and D with its output shape (C, T, H, W) and its number of parameters, what a clip costs in
    each, and what a training step takes in memory."""
    from hrvgan.models import build_model
    from hrvgan.nn.memory import process_bytes
    from hrvgan.nn.summary import layer_table

    gan = build_model(model, preset=preset, **net)
    print(f"{model}: {gan.num_frames} frames of {gan.size}x{gan.size} px, {gan.num_classes or 'no'} classes")
    print(layer_table(gan))
    gigabytes = process_bytes(gan, batch_size, precision) / 1e9
    print(
        f"training in {precision}, {batch_size} clips a step: about {gigabytes:.2g} GB besides the libraries"
    )
