"""Mode collapse and memorisation: warnings, distances to training clips, and a picture of the nearest ones."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from hrvgan.clipstore.clips import Clips
from hrvgan.features import Features
from hrvgan.features.refnet import RefNet, featurise
from hrvgan.metrics.neighbours import nearest
from hrvgan.nn.base import VideoGAN
from hrvgan.video.grids import drawable, filmstrips, labelled_columns, labelled_rows, write_image

MAX_FRAMES, ENLARGED = 8, 64
COLLAPSED = 1e-3  # Share of the real clips' variance below which generated clips count as all alike.


def collapse_warnings(real: Features, fake: Features) -> list[str]:
    """A sentence for each sign of mode collapse; such clips are scored all the same, badly."""
    warnings = []
    spreads = (side.features.astype(np.float64).var(axis=0).sum() for side in (real, fake))
    variance, fake_variance = map(float, spreads)
    copies = 1 - len(np.unique(fake.features, axis=0)) / len(fake)
    if variance > 0 and fake_variance < COLLAPSED * variance:
        share = f"{fake_variance / variance:.1g}"
        warnings.append(f"collapsed: the generated clips vary {share} as much as real ones")
    elif copies >= 0.1:
        warnings.append(f"collapsed: {copies:.0%} of the generated clips are copies of another one")
    if real.logits.shape[1] > 1 and fake.logits.shape[1] > 1:
        num_classes, num_real_classes = (len(np.unique(side.logits.argmax(1))) for side in (fake, real))
        if num_classes == 1 < num_real_classes:
            warnings.append("collapsed: every generated clip is taken for the same class")
    return warnings


def closeness(fakes: list[Features], real: Features, train: Features) -> dict[str, float]:
    """Median distance of generated and of held-out real clips to their nearest training clip, and the ratio.

    About 1: as far as new clips are. Far below 1: copies. Far above: nothing like the training clips.
    """
    made = np.concatenate([fake.features for fake in fakes])
    distances = [nearest(rows, train.features)[1] for rows in (made, real.features)]
    generated, held_out = (float(np.median(each)) for each in distances)
    return {"generated": generated, "held_out": held_out, "ratio": generated / held_out if held_out else 0.0}


def first_samples(gan: VideoGAN, labels: list[int], seed: int, truncation: float = 1.0) -> np.ndarray:
    """The first clip of each of K labels that stage `sample` shows, uint8 (K, T, H, W, 3)."""
    z = gan.latent(1, seed)
    z = z.repeat(len(labels), *[1] * (z.ndim - 1))
    return gan.draw(z, torch.tensor(labels), psi=truncation).numpy()


def first_predictions(gan: VideoGAN, clips: Clips, seed: int, most: int) -> tuple[list[int], np.ndarray]:
    """Labels of the first `most` classes that have clips, and a prediction from the first clip of each, uint8
    (K, T, H, W, 3)."""
    labels, rows = (values[:most] for values in np.unique(clips.labels, return_index=True))
    seen = torch.from_numpy(clips.read(rows)[:, : gan.num_frames])
    return labels.tolist(), gan.predict(seen, torch.from_numpy(labels), seed).numpy()


def write_nearest(
    path: Path,
    made: np.ndarray,
    titles: Sequence[str],
    net: RefNet,
    train: Clips,
    features: Features,
    head: str = "generated",
) -> list[dict]:
    """Write a picture: below `head` the clips `made`, uint8 (K, T, H, W, 3), with K titles, and to their right the
    nearest training clips with the names of their classes; at most MAX_FRAMES frames of each.

    `features` are those of `train`, in its order. Returns what is shown: class, clip_id and class of the training clip,
    distance.
    """
    rows, distances = nearest(featurise(net, [made])[0], features.features)
    ids = train.index["clip_id"].to_pylist()
    classes = [train.classes[train.labels[row]] if train.classes else "" for row in rows]
    frames = np.linspace(0, made.shape[1] - 1, min(made.shape[1], MAX_FRAMES)).round().astype(int)
    factor = max(1, ENLARGED // made.shape[2])
    left, right = made[:, frames], train.read(rows)[:, frames]
    left = headed_strips(left, drawable(titles, train.classes), head, factor)
    right = headed_strips(right, drawable(classes, train.classes), "nearest training clip", factor)
    gap = np.full((len(left), 6 * factor, 3), 255, dtype=np.uint8)
    write_image(path, np.concatenate([left, gap, right], axis=1))
    return [
        {"class": title, "clip_id": ids[row], "clip_class": name, "distance": float(distance)}
        for title, row, name, distance in zip(titles, rows, classes, distances, strict=True)
    ]


def headed_strips(clips: np.ndarray, names: Sequence[str], head: str, factor: int) -> np.ndarray:
    """Film strips of `clips`, enlarged, with names to their left where there are any, and `head` above them."""
    strips = filmstrips(clips, enlarge=factor)
    named = labelled_rows(strips, names) if any(names) else strips
    return labelled_columns(named, [head], named.shape[1] - strips.shape[1])
