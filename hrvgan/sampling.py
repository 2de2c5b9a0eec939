"""What people look at: a grid of every class, an interpolation, and clips one by one."""

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from hrvgan.files import write_json
from hrvgan.grids import filmstrips, labelled_rows, tile, write_image
from hrvgan.models.base import VideoGAN
from hrvgan.video import write_video

ENLARGED = 96  # pixels: smaller clips are enlarged to about this, or nobody sees anything


def write_samples(
    gan: VideoGAN,
    folder: Path,
    *,
    seed: int = 0,
    clips_per_class: int = 6,
    max_classes: int = 12,
    interpolation_steps: int = 8,
    truncation: float = 1.0,
) -> None:
    """Fills `folder` with classes.png/.mp4, interpolation.png/.mp4, clips/*.mp4 and samples.json.

    Classes beyond `max_classes` are left out. `truncation` below 1 scales z: less variety, fewer failures.
    """
    labels = list(range(min(max(gan.num_classes, 1), max_classes)))
    titles = [gan.classes[label] if gan.classes else "" for label in labels]
    with tqdm(total=3, desc="sample", unit="kind") as bar:
        classes = class_rows(gan, labels, clips_per_class, seed, truncation)
        strips = filmstrips(classes[:, 0], enlarge=enlarge(gan.size))
        kinds = [write_kind(folder, gan, "classes", strips, classes, titles, class_caption(gan))]
        bar.update()

        steps = interpolations(gan, labels[:4], interpolation_steps, seed, truncation)
        middles = filmstrips(steps[:, :, gan.num_frames // 2], enlarge=enlarge(gan.size))
        kinds += [write_kind(folder, gan, "interpolation", middles, steps, titles[:4], INTERPOLATION_CAPTION)]
        bar.update()

        clips = [
            write_clip(folder, gan, title, clip, seed)
            for title, clip in zip(titles, classes[:, 0], strict=True)
        ]
        write_json(folder / "samples.json", {"kinds": kinds, "clips": clips, "fps": gan.fps, "seed": seed})
        bar.update()


def class_caption(gan: VideoGAN) -> str:
    return (
        f"One row a class. The picture shows the {gan.num_frames} consecutive frames of one generated clip "
        "(as Fig. 4 of the paper does); the video shows several clips, each column with the same z in every class."
    )


INTERPOLATION_CAPTION = (
    "Linear interpolation in latent space (Fig. 2 and 3 of the paper): along a row, z moves evenly from the first "
    "clip's to the last's. The picture shows the middle frame of each clip."
)


def class_rows(gan: VideoGAN, labels: list[int], count: int, seed: int, truncation: float) -> np.ndarray:
    """uint8 (classes, count, T, H, W, 3), every row with the same z, so that the class alone differs."""
    z = gan.latent(count, seed) * truncation
    clips = gan.draw(z.repeat(len(labels), 1), torch.tensor(labels).repeat_interleave(count))
    return clips.unflatten(0, (len(labels), count)).numpy()


def interpolations(gan: VideoGAN, labels: list[int], steps: int, seed: int, truncation: float) -> np.ndarray:
    """uint8 (classes, steps, T, H, W, 3): `steps` points on the line between two z, for each class."""
    first, last = gan.latent(2, seed) * truncation
    path = torch.stack([torch.lerp(first, last, t) for t in torch.linspace(0, 1, steps).tolist()])
    clips = gan.draw(path.repeat(len(labels), 1), torch.tensor(labels).repeat_interleave(steps))
    return clips.unflatten(0, (len(labels), steps)).numpy()


def grid(clips: np.ndarray, columns: int = 8) -> np.ndarray:
    """uint8 (N, T, H, W, 3) -> one video (T, H', W', 3), `columns` clips a row, small clips enlarged."""
    return tile(clips, columns, enlarge=enlarge(clips.shape[2]))


def enlarge(size: int) -> int:
    """How many pixels wide to show each pixel of a clip of `size` pixels."""
    return max(1, ENLARGED // size)


def write_kind(
    folder: Path,
    gan: VideoGAN,
    kind: str,
    picture: np.ndarray,
    rows: np.ndarray,
    titles: list[str],
    caption: str,
) -> dict:
    """Writes <kind>.png (`picture`) and <kind>.mp4 (`rows`: (R, N, T, H, W, 3)), titles drawn beside both."""
    film = tile(rows.reshape(-1, *rows.shape[2:]), rows.shape[1], enlarge=enlarge(gan.size))
    if any(titles):
        picture, film = labelled_rows(picture, titles), labelled_rows(film, titles)
    write_image(folder / f"{kind}.png", picture)
    write_video(folder / f"{kind}.mp4", film, fps=gan.fps)
    return {"kind": kind, "png": f"{kind}.png", "mp4": f"{kind}.mp4", "caption": caption, "rows": titles}


def write_clip(folder: Path, gan: VideoGAN, title: str, clip: np.ndarray, seed: int) -> dict:
    """Writes one clip (T, H, W, 3), enlarged too: H.264 halves the resolution of colour, and 32 px would smear."""
    safe = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in title) or "clip"
    name = f"clips/{safe}.mp4"
    write_video(folder / name, tile(clip[None], 1, gap=0, enlarge=enlarge(gan.size)), fps=gan.fps)
    return {"class": title, "mp4": name, "seed": seed}
