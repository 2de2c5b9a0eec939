"""Validation of user input (command line, YAML) against function signatures; each error is one sentence."""

import argparse
import inspect
import math
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path

import yaml

from hrvgan.errors import InputError

# Half-open intervals by argument name; an argument that is not listed may have any value.
AT_LEAST_1, AT_LEAST_0 = (1, math.inf), (0, math.inf)
RANGES = {
    # of training
    **dict.fromkeys(
        ("steps", "batch_size", "accumulate", "log_every", "save_every", "sample_every", "samples_per_class"),
        AT_LEAST_1,
    ),
    **dict.fromkeys(("minutes", "lr_decay", "clip_grad", "seed", "score_every"), AT_LEAST_0),
    "ema": (0, 1),
    # of models
    "width": (1e-3, math.inf),
    "code_bits": (0, 11),
    **dict.fromkeys(("z_dim", "dim_content", "dim_motion", "r1_every", "clip_every"), AT_LEAST_1),
    **dict.fromkeys(
        ("num_classes", "alpha", "beta", "lambda1", "lambda2", "r1_gamma", "r2_gamma", "gp_weight", "drift",
         "ms_weight", "instance_noise", "lr", "lr_g", "lr_d", "weight_decay", "noise", "mask_weight",
         "class_weight"),
        AT_LEAST_0,
    ),
    "betas": (0, 1),
    # of clips
    **dict.fromkeys(("size", "num_frames", "frame_step", "clips_per_video", "workers"), AT_LEAST_1),
    **dict.fromkeys(("num_groups", "videos_per_group"), AT_LEAST_1),
    **dict.fromkeys(("fps", "min_motion", "max_bad_fraction", "time_limit"), AT_LEAST_0),
    "num_shards": (1, 2**15),
    "scene_cut": (0, 100),
    **dict.fromkeys(("val_fraction", "test_fraction"), (0, 1)),
    "fold": (0, 3),
    # of samples, scores and the report
    **dict.fromkeys(("clips_per_class", "max_classes", "networks", "published_clips"), AT_LEAST_1),
    **dict.fromkeys(("num_features", "max_size", "max_frames", "num_halvings"), AT_LEAST_1),
    **dict.fromkeys(("interpolation_steps", "draws", "num_clips"), (2, math.inf)),
    "real_clips_per_class": AT_LEAST_0,
    # of drawing
    "num": AT_LEAST_1,
    **dict.fromkeys(("frames", "to_seed", "refine", "truncation"), AT_LEAST_0),
}  # fmt: skip
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
WORDS = {"workers": "auto", "num_clips": "auto"}  # the only text allowed in place of a number


def check_values(where: str, function: Callable, values: dict) -> None:
    """Raises InputError that names `where` + key for the first of the `values` that is not of the type in the signature
    of `function`, or outside of RANGES. A whole number is a number, too."""
    parameters = inspect.signature(function).parameters
    for key, value in values.items():
        kind = parameters[key].annotation
        name = where + (key.replace("_", "-") if where == "--" else key)
        if not fits(value, kind):
            raise InputError(f"{name} {value!r}: need {describe(kind)}")
        if isinstance(value, str) and value != WORDS.get(key, value):
            raise InputError(f"{name} {value!r}: need {describe(int)} or {WORDS[key]}")
        least, below = RANGES.get(key, (-math.inf, math.inf))
        numbers = value if isinstance(value, list | tuple) else [value]
        if not all(least <= number < below for number in numbers if isinstance(number, int | float)):
            most = f", less than {below}" if below < math.inf else ""
            raise InputError(f"{name} {value!r}: need {least} or more{most}")


def fits(value: object, kind: object) -> bool:
    """True if `value` has the type `kind`; always true for types that nobody writes by hand."""
    if isinstance(kind, types.UnionType):
        return any(fits(value, one) for one in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        kinds = typing.get_args(kind)
        return isinstance(value, list | tuple) and len(value) == len(kinds) and all(map(fits, value, kinds))
    if typing.get_origin(kind) is list:
        return isinstance(value, list) and all(fits(one, *typing.get_args(kind)) for one in value)
    if kind in (None, types.NoneType):
        return value is None
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return kind not in KINDS or (isinstance(value, kind) and isinstance(value, bool) == (kind is bool))


def describe(kind: object) -> str:
    if typing.get_origin(kind) is tuple:
        return f"[{', '.join(map(describe, typing.get_args(kind)))}]"
    if typing.get_origin(kind) is list:
        return f"[{describe(*typing.get_args(kind))}, ...]"
    if isinstance(kind, types.UnionType):
        return " or ".join(map(describe, typing.get_args(kind)))
    return KINDS.get(kind, "nothing")


class Loader(yaml.SafeLoader):
    """Reads exponents as YAML 1.2 does, with or without a point: 1e-3 is a float, 1e3 is 1000."""


def number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    value = loader.construct_yaml_float(node)
    return int(value) if "e" in node.value.lower() and value.is_integer() else value


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
Loader.add_constructor("tag:yaml.org,2002:float", number)


def load_yaml(text: str, where: str) -> object:
    """Parses YAML. Raises InputError that names `where` when the text is not valid."""
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error


def yaml_dict(text: str) -> dict:
    """Type of a command-line argument that is a dict in YAML."""
    try:
        value = load_yaml(text, "here")
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form '{{key: value}}'")
    return value


def pick_device(name: str):
    """The torch.device called `name`; auto is a GPU if there is one. Raises InputError for a device that is not
    there."""
    import torch  # not needed to validate numbers

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name!r} is not known; choose one of auto, cpu, cuda") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name!r}: torch sees {torch.cuda.device_count()} GPUs; take another, or cpu or auto")
    return device
