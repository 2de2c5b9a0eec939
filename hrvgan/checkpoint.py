"""What training leaves on disk: the state to resume from, and the released model folder."""

import csv
import io
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hrvgan.errors import InputError
from hrvgan.files import atomic_path, write_json, write_text
from hrvgan.models import build_model
from hrvgan.models.base import Phase, VideoGAN


def save_state(
    path: str | Path, gan: VideoGAN, average: nn.Module, phases: list[Phase], step: int, history: list
):
    """Writes all that training needs to go on from `step`, as one whole file."""
    state = {
        "step": step,
        "gan": gan.state_dict(),
        "average": average.state_dict(),
        "optimizers": {phase.name: phase.optimizer.state_dict() for phase in phases},
        "history": history,
    }
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def resume(
    path: str | Path, gan: VideoGAN, average: nn.Module, phases: list[Phase]
) -> tuple[int, list[dict]]:
    """Loads the state at `path` into the arguments; returns (steps done, history): (0, []) when there is none."""
    if not Path(path).exists():
        return 0, []
    try:
        state = torch.load(path, map_location=gan.device, weights_only=True)
        gan.load_state_dict(state["gan"])
        average.load_state_dict(state["average"])
        for phase in phases:
            phase.optimizer.load_state_dict(state["optimizers"][phase.name])
    except (RuntimeError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not a state of this model ({reason}); remove it to train anew") from error
    return state["step"], state["history"]


def release(
    folder: Path, gan: VideoGAN, average: nn.Module, history: list[dict], data: dict[str, str]
) -> None:
    """Fills `folder` with the model: bytes that depend on training alone.

    `data` says what it was trained on: "dataset" (a name) and "data_digest" (Clips.digest).
    """
    description = {
        "name": gan.name,
        "arguments": gan.arguments,
        "classes": list(gan.classes),
        "fps": gan.fps,
        "clip_shape": [gan.num_frames, gan.size, gan.size, 3],
        "steps": history[-1]["step"],
        **data,
    }
    save_file(contiguous(average), folder / "model.safetensors")
    save_file(contiguous(gan.D), folder / "discriminator.safetensors")
    write_json(folder / "model.json", description)
    write_text(folder / "history.csv", history_csv(history))
    write_text(folder / "README.md", card(gan, description))


def contiguous(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def history_csv(history: list[dict]) -> str:
    """One row a report; a term that was not computed in it (a lazy penalty) is left empty."""
    columns = list(dict.fromkeys(key for row in history for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


def load(folder: str | Path, device: str = "cpu") -> VideoGAN:
    """The released model in `folder`, in eval mode, with EMA weights in G.

    Raises InputError when the folder is no released model, or its weights are those of another.
    """
    folder = Path(folder)
    if not (folder / "model.json").exists():
        raise InputError(
            f"{folder}: no model.json, so no released model; train one with `dvc repro` or `hrvgan train`"
        )
    try:
        description = json.loads((folder / "model.json").read_text())
        gan = build_model(description["name"], **description["arguments"])
        gan.G.load_state_dict(load_file(folder / "model.safetensors"))
        if (folder / "discriminator.safetensors").exists():
            gan.D.load_state_dict(load_file(folder / "discriminator.safetensors"))
    except InputError:
        raise
    except Exception as error:  # safetensors, json and torch each raise their own.
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{folder}: model.json and the weights do not fit ({reason}); train or fetch it anew"
        ) from error
    gan.classes, gan.fps = description["classes"], description["fps"]
    return gan.to(device).eval().requires_grad_(False)


def card(gan: VideoGAN, description: dict) -> str:
    """The model card, a README.md."""
    arguments = "\n".join(f"| `{key}` | `{value}` |" for key, value in description["arguments"].items())
    count = sum(p.numel() for p in gan.G.parameters()), sum(p.numel() for p in gan.D.parameters())
    return f"""# {description["name"]}: {gan.num_frames} frames of {gan.size}x{gan.size} px

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
