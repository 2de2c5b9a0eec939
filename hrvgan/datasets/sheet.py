"""A clip store at a glance."""

from pathlib import Path

import numpy as np

from hrvgan.datasets.clips import Clips
from hrvgan.grids import filmstrips, labelled_rows, write_image


def contact_sheet(clips: Clips, path: str | Path, *, rows: int = 2, num_frames: int = 8) -> None:
    """Write a picture of `rows` clips of each class, or of as many where there are no classes: a row a clip.

    Clips are taken evenly from the store, and from each at most `num_frames` frames, spread over its length.
    """
    chosen = [index for label in np.unique(clips.labels) for index in _spread(clips.labels == label, rows)]
    times = np.linspace(0, clips.shape[0] - 1, min(num_frames, clips.shape[0])).round().astype(int)
    labels = clips.index["class_name" if clips.classes else "video_id"].take(chosen).to_pylist()
    enlarge = max(1, 64 // clips.shape[1])
    strips = filmstrips(clips.read(chosen)[:, times], enlarge=enlarge)
    write_image(path, labelled_rows(strips, labels))


def _spread(mask: np.ndarray, count: int) -> np.ndarray:
    found = np.flatnonzero(mask)
    return found[np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)]
