"""Released models: folders with weights, the arguments that rebuild the model, a history and a model card."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hrvgan.errors import InputError, first_line
from hrvgan.files import atomic_folder, file_digest, write_json, write_text
from hrvgan.nn.base import VideoGAN

GONE = ("grow_clips",)  # arguments of earlier versions, which changed nothing in a model that was done
PRETRAINED = Path(__file__).parents[1] / "pretrained"  # released models that come with the package


def release(out: str | Path, gan: VideoGAN, average: nn.Module, history: list[dict], data: dict) -> None:
    """Writes the released model to the folder `out`; its bytes depend on the training alone.

    `data` names the training data: "dataset" (a name) and "data_digest" (Clips.digest); what else it holds goes into
    model.json, too.
    """
    description = {
        "name": gan.name,
        "arguments": gan.arguments,
        "classes": list(gan.classes),
        "fps": gan.fps,
        "crop": gan.crop,
        "clip_shape": [gan.num_frames, gan.size, gan.size, 3],
        "steps": history[-1]["step"],
        "origin": gan.origin,
        **data,
    }
    with atomic_folder(out) as folder:
        save_file(contiguous(average), folder / "model.safetensors")
        save_file(contiguous(gan.D), folder / "discriminator.safetensors")
        write_json(folder / "model.json", description)
        write_text(folder / "history.csv", history_csv(history))
        write_text(folder / "README.md", card(gan, description))


def check_out(out: str | Path) -> None:
    """Raises InputError when `out` holds something other than a released model, which a release would delete."""
    out = Path(out)
    if out.exists() and not (out / "model.json").exists() and (out.is_file() or any(out.iterdir())):
        raise InputError(f"{out}: is there already and no released model; name a new folder, or remove it")


def contiguous(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def history_csv(history: list[dict]) -> str:
    """History as CSV, one row a report; a term that was not computed (a lazy penalty) is empty."""
    columns = list(dict.fromkeys(key for row in history for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


def released_folder(name: str | Path) -> Path:
    """The folder `name`; or the model of that name that comes with the package, where there is no such folder."""
    packaged = PRETRAINED / name
    return packaged if not Path(name).exists() and packaged.is_dir() else Path(name)


def load(folder: str | Path, device: str | torch.device, build: Callable[..., VideoGAN]) -> VideoGAN:
    """The released model in `folder`, made by `build(name, **arguments)`: see hrvgan.models.load."""
    folder = released_folder(folder)
    if not (folder / "model.json").exists():
        names = ", ".join(sorted(path.name for path in PRETRAINED.iterdir()))
        raise InputError(
            f"{folder}: no model.json, so no released model; train one with `dvc repro` or `hrvgan train`, or take one "
            f"that comes with the package: {names}"
        )
    try:
        description = json.loads((folder / "model.json").read_text())
        arguments = {key: value for key, value in description["arguments"].items() if key not in GONE}
        gan = build(description["name"], **arguments)
        gan.G.load_state_dict(load_file(folder / "model.safetensors"))
        if (folder / "discriminator.safetensors").exists():
            gan.D.load_state_dict(load_file(folder / "discriminator.safetensors"))
    except InputError:
        raise
    except Exception as error:  # safetensors, json and torch each raise their own.
        reason = first_line(error)
        raise InputError(
            f"{folder}: model.json and the weights do not fit ({reason}); train or fetch it anew"
        ) from error
    gan.classes, gan.fps = description["classes"], description["fps"]
    gan.crop, gan.origin = description.get("crop", True), description.get("origin", "")
    return gan.to(device).eval().requires_grad_(False)


def warm_start(gan: VideoGAN, other: VideoGAN, folder: str | Path) -> str:
    """Copies the weights of `other`, the released model in `folder`, into G (with its E, if any) and D of `gan`, and
    sets `gan.origin`: those that have the same name and shape, the others stay as they are (classes that are new, a
    size that is larger). Returns the names of the layers that have such.

    Raises InputError when `other` is another kind of model.
    """
    if other.name != gan.name:
        raise InputError(f"{folder}: a model {other.name!r}, cannot start a {gan.name!r} from it")
    weights = {"G": Path(folder) / "model.safetensors", "D": Path(folder) / "discriminator.safetensors"}
    fresh, renamed = [], gan.take_levels(other)
    for prefix, network, trained in (("G", gan.G, other.G), ("D", gan.D, other.D)):
        if not weights[prefix].exists():  # A model may be given away without its D.
            fresh.append(prefix)
            continue
        theirs = {rename(key, renamed): value for key, value in trained.state_dict().items()}
        mine = network.state_dict()
        fits = {key: theirs[key] for key in mine if key in theirs and theirs[key].shape == mine[key].shape}
        network.load_state_dict(mine | fits)
        layers = (
            key.partition(".parametrizations")[0].removesuffix(".weight") for key in mine if key not in fits
        )
        fresh += [f"{prefix}.{layer.removesuffix('.bias')}" for layer in layers]
    gan.origin = "-".join(file_digest(file)[:16] for file in weights.values() if file.exists())
    return ", ".join(dict.fromkeys(fresh))


def rename(key: str, beginnings: dict[str, str]) -> str:
    """`key` with another beginning, where it has one of `beginnings`."""
    for old, new in beginnings.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def card(gan: VideoGAN, description: dict) -> str:
    """The model card, a README.md with the front matter that the Hugging Face Hub reads."""
    arguments = "\n".join(f"| `{key}` | `{value}` |" for key, value in description["arguments"].items())
    count = sum(p.numel() for p in gan.G.parameters()), sum(p.numel() for p in gan.D.parameters())
    return f"""---
library_name: hrvgan
tags: [video-generation, gan, {description["name"]}]
datasets: [{description["dataset"]}]
---
# {description["name"]}: {gan.num_frames} frames of {gan.size}x{gan.size} px

Trained for {description["steps"]:,} steps on `{description["dataset"]}` (clips {description["data_digest"][:12]}).
{count[0]:,} parameters in G, {count[1]:,} in D. Classes: {", ".join(description["classes"]) or "none"}.

```python
import hrvgan
gan = hrvgan.load(".")
videos = gan.sample(16, seed=0)  # uint8 (16, {gan.num_frames}, {gan.size}, {gan.size}, 3)
```

| argument | value |
|---|---|
{arguments}

Its licence is that of the data it was trained on: see `data/README.md` of the project.
"""
