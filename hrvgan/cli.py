"""The command `hrvgan`: models and clips without any pipeline."""

import argparse
import sys
from pathlib import Path

import yaml

from hrvgan.errors import InputError


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="hrvgan", description="Conditional spatio-temporal GANs that generate video."
    )
    commands = parser.add_subparsers(metavar="command", required=True)
    for command in (add_train, add_sample, add_interpolate, add_info, add_clips):
        command(commands)
    arguments = vars(parser.parse_args(argv))
    command = arguments.pop("command")
    try:
        command(**arguments)
    except InputError as error:
        sys.exit(f"error: {error}")


def add_train(commands) -> None:
    parser = commands.add_parser("train", help="train a model on a clip store", description=train.__doc__)
    parser.add_argument("clips", type=Path, help="a clip store, such as data/clips/shapes")
    parser.add_argument("out", type=Path, help="folder of the released model")
    parser.add_argument("--model", default="hrvgan")
    parser.add_argument("--preset", default="best")
    parser.add_argument(
        "--net", default={}, type=yaml_dict, help="arguments of the model, e.g. '{width: 0.25}'"
    )
    parser.add_argument(
        "--train", default={}, type=yaml_dict, help="arguments of training, e.g. '{steps: 4000}'"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(command=train)


def train(clips: Path, out: Path, model: str, preset: str, net: dict, train: dict, seed: int) -> None:
    """Train on the training split of CLIPS and release the model to OUT. The same command resumes."""
    import torch

    from hrvgan import checkpoint, training
    from hrvgan.datasets.clips import Clips
    from hrvgan.files import atomic_folder
    from hrvgan.models import build_model

    store = Clips(clips)
    torch.manual_seed(seed)
    given = {"num_classes": store.num_classes, "size": store.shape[1], **net}
    gan = build_model(model, preset=preset, **given)
    gan.classes, gan.fps = store.classes if gan.num_classes else [], store.fps
    state = out.with_name(f"{out.name}.state.pt")
    average, history = training.train(gan, store.split("train"), state, seed=seed, **train)
    with atomic_folder(out) as folder:
        data = {"dataset": clips.name, "data_digest": store.digest}
        checkpoint.release(folder, gan, average, history, data)
    print(f"{out}: released; {state} continues it with more steps")


def yaml_dict(text: str) -> dict:
    value = yaml.safe_load(text)
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form '{{key: value}}'")
    return value


def add_sample(commands) -> None:
    parser = commands.add_parser(
        "sample", help="draw clips from a released model", description=sample.__doc__
    )
    model_arguments(parser, which="draw this class only", num=16)
    parser.set_defaults(command=sample)


def model_arguments(parser, which: str, num: int) -> None:
    parser.add_argument("model", type=Path, help="folder of a released model, such as models/laptop")
    parser.add_argument(
        "--out", type=Path, required=True, help="a file that ends in .mp4, .gif, .png or .npz"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--class", dest="class_name", default="", help=which)
    parser.add_argument("--num", type=int, default=num, help="number of clips")


def sample(model: Path, out: Path, seed: int, device: str, class_name: str, num: int) -> None:
    """Draw NUM clips as one video grid (.mp4, .gif), filmstrips (.png) or arrays (.npz), by the suffix of OUT."""
    import torch

    from hrvgan.checkpoint import load

    gan = load(model, device)
    labels = torch.full((num,), gan.label(class_name)) if class_name else gan.cycle_labels(num)
    write(out, gan.sample(num, labels, seed).numpy(), gan.fps, labels.numpy())


def add_interpolate(commands) -> None:
    parser = commands.add_parser(
        "interpolate", help="walk between two latents", description=interpolate.__doc__
    )
    model_arguments(parser, which="the class; the first one by default", num=8)
    parser.set_defaults(command=interpolate)


def interpolate(model: Path, out: Path, seed: int, device: str, class_name: str, num: int) -> None:
    """Draw NUM clips evenly on the line between two latents (Fig. 2 and 3 of the paper)."""
    import numpy as np

    from hrvgan.checkpoint import load
    from hrvgan.sampling import interpolations

    gan = load(model, device)
    label = gan.label(class_name) if class_name else 0
    clips = interpolations(gan, [label], num, seed, 1.0)[0]
    write(out, clips, gan.fps, np.full(num, label))


def write(out: Path, clips, fps: float, labels) -> None:
    import numpy as np

    from hrvgan.files import atomic_path
    from hrvgan.grids import filmstrips, write_image
    from hrvgan.sampling import enlarge, grid
    from hrvgan.video import write_video

    if out.suffix in (".mp4", ".gif"):
        write_video(out, grid(clips), fps=fps)
    elif out.suffix == ".png":
        write_image(out, filmstrips(clips, enlarge=enlarge(clips.shape[2])))
    elif out.suffix == ".npz":
        with atomic_path(out) as temporary:
            np.savez_compressed(temporary, frames=clips, labels=labels)
    else:
        raise InputError(
            f"{out}: cannot write {out.suffix or 'a file without suffix'}; use .mp4, .gif, .png or .npz"
        )
    print(out)


def add_info(commands) -> None:
    parser = commands.add_parser("info", help="the layers of a model", description=info.__doc__)
    parser.add_argument("--model", default="hrvgan")
    parser.add_argument("--preset", default="best")
    parser.add_argument(
        "--net", default={}, type=yaml_dict, help="arguments of the model, e.g. '{size: 256}'"
    )
    parser.set_defaults(command=info)


def info(model: str, preset: str, net: dict) -> None:
    """Print each layer of G and D with its output shape (C, T, H, W) and its number of parameters."""
    from hrvgan.models import build_model
    from hrvgan.models.table import layer_table

    gan = build_model(model, preset=preset, **net)
    print(f"{model}: {gan.num_frames} frames of {gan.size}x{gan.size} px, {gan.num_classes or 'no'} classes")
    print(layer_table(gan))


def add_clips(commands) -> None:
    parser = commands.add_parser(
        "clips", help="look at a clip store, or convert it", description=clips.__doc__
    )
    parser.add_argument("how", choices=["show", "export", "import"])
    parser.add_argument("store", type=Path, help="a clip store, such as data/clips/shapes")
    parser.add_argument("file", type=Path, help="show: a .png to write; export, import: the .npz")
    parser.set_defaults(command=clips)


def clips(how: str, store: Path, file: Path) -> None:
    """Print a summary of STORE and write a contact sheet to FILE; or export it to, or import it from, an npz FILE."""
    from hrvgan.datasets.clips import Clips
    from hrvgan.datasets.npz import export_npz, import_npz
    from hrvgan.datasets.sheet import contact_sheet

    if how == "import":
        import_npz(file, store)
        print(store)
        return
    opened = Clips(store)
    if how == "export":
        export_npz(opened, file)
    else:
        splits = ", ".join(f"{len(opened.split(name))} {name}" for name in ("train", "val", "test"))
        print(
            f"{store}: {len(opened)} clips {opened.shape} of {opened.num_classes} classes: {splits}; {opened.digest}"
        )
        contact_sheet(opened, file)
    print(file)


if __name__ == "__main__":
    main()
