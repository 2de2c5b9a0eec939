"""Models by name. A name is imported only when it is asked for, so that adding a model touches no other."""

import importlib
import inspect
from pathlib import Path

import torch

from hrvgan.config import check_values
from hrvgan.errors import InputError
from hrvgan.nn import checkpoint
from hrvgan.nn.base import VideoGAN

MODELS = {
    "hrvgan": "hrvgan.models.hrvgan.HRVGAN",
    "vgan": "hrvgan.models.vgan.VGAN",
    "tgan": "hrvgan.models.tgan.TGAN",
    "mocogan": "hrvgan.models.mocogan.MoCoGAN",
}


def model_class(name: str) -> type[VideoGAN]:
    if name not in MODELS:
        raise InputError(f"unknown model {name!r}; known: {', '.join(MODELS)}")
    module, _, attribute = MODELS[name].rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def build_model(name: str, *, preset: str = "", **arguments) -> VideoGAN:
    """The model `name` with the arguments of `preset` (none when empty), overridden by `arguments`.

    `num_classes` says how many classes the clips have; a model that is not conditional leaves it out.
    Raises InputError for an unknown model, preset or argument, for a value that an argument cannot have, and for
    a size that the model does not have.
    """
    cls = model_class(name)
    if preset and preset not in cls.presets:
        raise InputError(f"model {name} has no preset {preset!r}; known: {', '.join(cls.presets)}")
    defaults = {key: parameter.default for key, parameter in inspect.signature(cls).parameters.items()}
    given = {**cls.presets.get(preset, {}), **arguments}
    if not cls.conditional:
        given.pop("num_classes", None)
    for key in given:
        if key not in defaults:
            raise InputError(f"model {name} has no argument {key!r}; known: {', '.join(defaults)}")
    check_values(f"{name}: ", cls, given)
    gan = cls(**defaults | given)
    # All of them, so that a later default changes no released model.
    gan.name, gan.arguments = name, defaults | given
    return gan


def load(folder: str | Path, device: str | torch.device = "cpu") -> VideoGAN:
    """The released model in `folder`, or one that comes with the package ("shapes-32"), in eval mode, with EMA weights
    in G.

    Raises InputError when the folder is no released model, or its weights are those of another.
    """
    return checkpoint.load(folder, device, build_model)
