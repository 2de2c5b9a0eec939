"""A folder of generated clips for other programs: one file, or folder of frames, a clip, and their classes in a csv."""

import csv
import json
from pathlib import Path

import numpy as np
import torch

from hrvgan.errors import InputError
from hrvgan.files import atomic_folder, atomic_path, write_json
from hrvgan.nn.base import VideoGAN
from hrvgan.progress import bar
from hrvgan.sampling.samples import long_clips
from hrvgan.video.grids import write_image
from hrvgan.video.io import write_video

FORMATS = ("mp4", "gif", "png", "npz")
BATCH = 32  # Clips in memory at a time. Fixed: clips of a batch are drawn together, also after a stop.
TABLE = "clips.csv"
SETTINGS = "samples.json"


def export_clips(
    gan: VideoGAN, folder: Path, num: int, *, weights: str, format: str = "mp4", class_name: str = "",
    seed: int = 0, truncation: float = 1.0, frames: int = 0,
) -> None:  # fmt: skip
    """Fill `folder` with `num` clips of their own size, 00000.<format> and so on, clips.csv and samples.json.

    Format png writes a folder of frames a clip, npz the arrays `frames` (T, H, W, 3), `label`, `class` and `fps`. The
    same call continues after a stop, and with a larger `num`; `weights` is a digest of the model's. Raises InputError
    if `folder` holds anything else.
    """
    settings = {
        "weights": weights, "format": format, "class": class_name, "seed": seed,
        "truncation": truncation, "frames": frames or gan.num_frames, "fps": gan.fps,
    }  # fmt: skip
    labels = torch.full((num,), gan.label(class_name)) if class_name else gan.cycle_labels(num)
    names = [f"{number:05d}" + ("" if format == "png" else f".{format}") for number in range(num)]
    open_folder(folder, settings, names)
    z = None if frames else gan.latent(num, seed)
    with bar(desc="sample", total=num, unit="clip") as progress:
        for start in range(0, num, BATCH):
            batch = range(start, min(start + BATCH, num))
            missing = [number for number in batch if not (folder / names[number]).exists()]
            if missing and frames:
                clips = long_clips(gan, labels[batch], frames, seed, truncation, first=start, hidden=True)
            elif missing:
                clips = gan.draw(z[batch], labels[batch], psi=truncation).numpy()
            for number in missing:
                write_clip(folder / names[number], clips[number - start], gan, int(labels[number]))
            progress.update(len(batch))
    with atomic_path(folder / TABLE) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "label", "class"])
        writer.writerows(zip(names, labels.tolist(), gan.titles(labels.tolist()), strict=True))


def open_folder(folder: Path, settings: dict, names: list[str]) -> None:
    """Record `settings` in `folder`. Raises InputError if it holds other files, or clips of other settings."""
    recorded = folder / SETTINGS
    visible = {path.name for path in folder.iterdir() if path.name[0] != "."} if folder.is_dir() else set()
    if recorded.exists():
        old = json.loads(recorded.read_text(encoding="utf-8"))
        if differing := [key for key in settings if old.get(key) != settings[key]]:
            others = f"clips drawn with other {', '.join(differing)}"
            raise InputError(f"{folder}: holds {others}; name a new folder")
    if foreign := sorted(visible - {SETTINGS, TABLE, *names}):
        what = f"more than the {len(names)} clips asked for" if recorded.exists() else "other files"
        raise InputError(f"{folder}: holds {what}, such as {foreign[0]}; name a new folder")
    write_json(recorded, settings)


def write_clip(path: Path, clip: np.ndarray, gan: VideoGAN, label: int) -> None:
    """Write one clip, uint8 (T, H, W, 3); a path without suffix becomes a folder of frames."""
    if path.suffix in (".mp4", ".gif"):
        write_video(path, clip, fps=gan.fps)
    elif path.suffix == ".npz":
        with atomic_path(path) as temporary:
            (title,) = gan.titles([label])
            np.savez_compressed(temporary, frames=clip, label=label, **{"class": title}, fps=gan.fps)
    else:
        with atomic_folder(path) as frames:
            for number, frame in enumerate(clip):
                write_image(frames / f"{number:03d}.png", frame)
