"""Overview of a clip store: text summary and contact sheet."""

import json
from collections import Counter
from pathlib import Path

import numpy as np

from hrvgan.clipstore.clips import SPLITS, Clips
from hrvgan.video.grids import drawable, filmstrips, labelled_rows, write_image


def summary(clips: Clips) -> str:
    """Text summary of a store: clips by split and class, motion, and dropped videos."""
    frames, height, width, _ = clips.shape
    splits = Counter(clips.index["split"].to_pylist())
    groups = {split: len(set(clips.split(split).index["group"].to_pylist())) for split in splits}
    videos, motion = len(set(clips.index["video_id"].to_pylist())), np.asarray(clips.index["motion"])
    quartiles = zip(np.quantile(motion, (0, 0.5, 1)).tolist(), ("least", "median", "most"), strict=True)
    lines = [
        f"{clips.folder}: {len(clips):,} clips of {frames} frames, {width}x{height} px, {clips.fps:g} a second",
        f"digest   {clips.digest}",
        f"videos   {videos:,} in {len(set(clips.index['group'].to_pylist())):,} groups",
        "splits   " + ", ".join(f"{splits[name]:,} {name} ({groups[name]} groups)" for name in SPLITS if splits[name]),
        "motion   " + ", ".join(f"{value:.2f} {name}" for value, name in quartiles) + " levels",
    ]
    if clips.classes:
        counts = Counter(clips.labels.tolist())
        few, many = min(counts.values()), max(counts.values())
        lines.insert(3, f"classes  {len(clips.classes)}, of {few:,} to {many:,} clips each")
    return "\n".join([*lines, *_dropped(clips.folder)])


def _dropped(folder: Path) -> list[str]:
    path = folder / "manifest.json"  # missing in a store that was imported
    dropped = json.loads(path.read_text(encoding="utf-8"))["dropped"] if path.is_file() else []
    rows = [f"  {row['video_id']}: {row['failure']}, {row['cause']}" for row in dropped[:10]]
    more = [f"  and {len(dropped) - 10} more, in {path}"] if len(dropped) > 10 else []
    return [f"dropped  {len(dropped)} videos", *rows, *more]


def contact_sheet(clips: Clips, path: str | Path, *, rows: int = 2, num_frames: int = 8) -> None:
    """Write an image with a row per clip: `rows` clips of each class, or of the store if it has no classes.

    Clips are spread evenly over the store, and at most `num_frames` frames evenly over each clip.
    """
    chosen = [index for label in np.unique(clips.labels) for index in _spread(clips.labels == label, rows)]
    times = np.linspace(0, clips.shape[0] - 1, min(num_frames, clips.shape[0])).round().astype(int)
    labels = clips.index["class_name" if clips.classes else "video_id"].take(chosen).to_pylist()
    enlarge = max(1, 64 // clips.shape[1])
    strips = filmstrips(clips.read(chosen)[:, times], enlarge=enlarge)
    write_image(path, labelled_rows(strips, drawable(labels, clips.classes)))


def _spread(mask: np.ndarray, count: int) -> np.ndarray:
    indices = np.flatnonzero(mask)
    return indices[np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int)]
