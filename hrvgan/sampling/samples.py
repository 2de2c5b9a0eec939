"""Sample pictures and videos: a grid of all classes, an interpolation, single clips, predictions; and how they are
drawn: walks between latents, long videos, latents of real clips."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError
from hrvgan.files import write_json
from hrvgan.nn.base import MAX_CLASSES, VideoGAN
from hrvgan.progress import bar
from hrvgan.video.grids import (
    BAND,
    GAP,
    drawable,
    filmstrips,
    labelled_columns,
    labelled_rows,
    legend,
    tile,
    write_image,
)
from hrvgan.video.io import write_video

ROW = 8  # clips in the row that shows a model beside others, and in a row of a grid
MAX_SIDE = {".mp4": 16384, ".gif": 65535}  # pixels: x264's limit, and the format's
ENLARGED = 96  # pixels: smaller clips are shown enlarged to about this size
LINE = 16  # frames in a line of a picture; longer clips go on in the next one


def write_samples(
    gan: VideoGAN, folder: Path, *, seed: int = 0, clips_per_class: int = 6, classes: list[str] | None = None,
    max_classes: int = MAX_CLASSES, interpolation_steps: int = 8, truncation: float = 1.0,
) -> None:  # fmt: skip
    """Fills `folder` with classes.png/.mp4, interpolation.png/.mp4, clips/*.mp4, row.mp4 and samples.json.

    The pictures show `classes`, or the first `max_classes` if none are named. `truncation` is psi of
    `VideoGAN.generate`: below 1, less variety and fewer failures.
    """
    labels = gan.labels_to_show(classes or (), max_classes)
    titles = gan.titles(labels)
    with bar(desc="sample", total=3, unit="kind") as progress:
        classes = class_rows(gan, labels, clips_per_class, seed, truncation)
        kinds = [write_kind(folder, gan, "classes", classes[:, 0], classes, labels, class_caption(gan))]
        progress.update()

        first, last = gan.latent(2, seed)
        walks = [walk(gan, (first, c), (last, c), interpolation_steps, truncation) for c in labels[:4]]
        steps = np.stack(walks)  # (classes, steps, T, H, W, 3)
        middles = steps[:, :, gan.num_frames // 2]
        kinds += [
            write_kind(folder, gan, "interpolation", middles, steps, labels[:4], INTERPOLATION_CAPTION,
                       columns=step_names(interpolation_steps))
        ]  # fmt: skip
        progress.update()

        clips = [
            write_clip(folder, gan, label, title, clip, seed)
            for label, title, clip in zip(labels, titles, classes[:, 0], strict=True)
        ]
        row = gan.draw(gan.latent(ROW, seed), gan.cycle_labels(ROW), psi=truncation).numpy()
        write_video(folder / "row.mp4", grid(row, ROW), fps=gan.fps)
        about = {"kinds": kinds, "clips": clips, "row": "row.mp4", "fps": gan.fps, "seed": seed}
        write_json(folder / "samples.json", about)
        progress.update()


def class_caption(gan: VideoGAN) -> str:
    return (
        f"One row a class. The picture shows the {gan.num_frames} consecutive frames of one generated clip "
        "(as Fig. 4 of the paper does); the video shows several clips, each column with the same z in every class."
    )


INTERPOLATION_CAPTION = (
    "Linear interpolation in latent space (Fig. 2 and 3 of the paper): along a row, z moves evenly from the first "
    "clip's to the last's. The picture shows the middle frame of each clip."
)


def step_names(steps: int) -> list[str]:
    return ["step 1", *map(str, range(2, steps + 1))]


def class_rows(gan: VideoGAN, labels: list[int], count: int, seed: int, truncation: float) -> np.ndarray:
    """uint8 (classes, count, T, H, W, 3), every row with the same z, so that the class alone differs."""
    z = gan.latent(count, seed)
    z = z.repeat(len(labels), *[1] * (z.ndim - 1))
    clips = gan.draw(z, torch.tensor(labels).repeat_interleave(count), psi=truncation)
    return clips.unflatten(0, (len(labels), count)).numpy()


def walk(
    gan: VideoGAN, start: tuple[Tensor, int], end: tuple[Tensor, int], steps: int, truncation: float = 1.0
) -> np.ndarray:
    """uint8 (steps, T, H, W, 3): points on the line from one (latent, label) to another, ends included."""
    part = torch.linspace(0, 1, steps)
    (z0, c0), (z1, c1) = start, end
    z = torch.stack([torch.lerp(z0, z1, p) for p in part.tolist()])
    if c0 == c1:
        c = torch.full((steps,), c0)
    else:  # Weights of the classes, which G accepts in place of a label.
        c = torch.zeros(steps, gan.num_classes)
        c[:, c0], c[:, c1] = 1 - part, part
    return gan.draw(z, c, psi=truncation).numpy()


def long_clips(
    gan: VideoGAN, labels: Tensor, num_frames: int, seed: int = 0, truncation: float = 1.0, *,
    first: int = 0, hidden: bool = False,
) -> np.ndarray:  # fmt: skip
    """uint8 (N, num_frames, H, W, 3), longer than the clips that the model was trained on.

    Needs one latent a frame. Windows of a clip's length, each half over the one before, look at their part of one
    long sequence of latents; where two overlap, the picture passes linearly from one to the other. `first` is the
    number of the first clip among those of `seed`; `hidden` shows no progress.
    """
    if len(gan.z_shape) < 2:
        has = f"the model has one latent a clip of {gan.num_frames} frames"
        raise InputError(f"{has}, so it draws no more; train one with latent: sequence")
    length, hop = gan.num_frames, gan.num_frames // 2
    count = max(1, -(-(num_frames - length) // hop) + 1)
    z = long_latents(gan, range(first, first + len(labels)), (count - 1) * hop + length, seed)
    out = np.zeros((len(labels), z.shape[1], gan.size, gan.size, 3), np.float32)
    rise = (np.arange(length - hop) + 0.5) / (length - hop)
    for start in bar(range(0, count * hop, hop), "windows", hidden=hidden, unit="window"):
        window = gan.draw(z[:, start : start + length], labels, psi=truncation).numpy()
        share = np.ones((length, 1, 1, 1), np.float32)
        if start:
            share[: length - hop, 0, 0, 0] = rise
        span = out[:, start : start + length]
        span[:] = span * (1 - share) + window * share
    return out[:, :num_frames].round().astype(np.uint8)


def long_latents(gan: VideoGAN, numbers: range, num_frames: int, seed: int) -> Tensor:
    """(n, num_frames, z_dim) standard normal; first frames are the rows `numbers` of `gan.latent`."""
    shape = (num_frames, gan.z_dim)
    rows = [np.random.default_rng((seed, i)).standard_normal(shape, np.float32) for i in numbers]
    return torch.from_numpy(np.stack(rows))


def invert(gan: VideoGAN, clips: Tensor, c: Tensor, *, steps: int = 200, lr: float = 0.05, seed: int = 0) -> Tensor:
    """Latents from which `gan.generate(z, c)` draws `clips` (N, 3, T, H, W) in [-1, 1] as nearly as was found.

    It starts from E(clips) where the model has an encoder, else from a random z, and takes `steps` steps of Adam on
    the mean squared error; of all that it saw it returns the best for each clip. Zero steps: the encoder alone.
    """
    if clips.shape[2:] != (gan.num_frames, gan.size, gan.size):
        sides, made = tuple(clips.shape[2:]), (gan.num_frames, gan.size, gan.size)
        raise InputError(f"clips of {sides} (frames, height, width); the model makes {made}: cut and resize them first")
    gan.eval().requires_grad_(False)
    clips, c = clips.to(gan.device), c.to(gan.device)
    z = start_latents(gan, clips, seed).requires_grad_()
    best, least = z.detach().clone(), torch.full((len(clips),), float("inf"), device=gan.device)
    optimizer = torch.optim.Adam([z], lr)
    for step in bar(range(steps + 1), "invert", unit="step", hidden=not steps):
        error = F.mse_loss(gan.generate(z, c), clips, reduction="none").mean((1, 2, 3, 4))  # (N,)
        better = error < least
        best[better], least[better] = z.detach()[better], error.detach()[better]
        if step < steps:
            optimizer.zero_grad()
            error.sum().backward()
            optimizer.step()
    return best


def start_latents(gan: VideoGAN, clips: Tensor, seed: int) -> Tensor:
    """E's latents at the length of random ones, since G looks at their direction alone; or random ones."""
    if getattr(gan.G, "E", None) is None:
        return gan.latent(len(clips), seed).to(gan.device)
    with torch.no_grad():
        z = gan.encode(clips)
    return F.normalize(z, dim=-1) * z.shape[-1] ** 0.5


def grid(clips: np.ndarray, columns: int = ROW, captions: Sequence[str] = ()) -> np.ndarray:
    """uint8 (N, T, H, W, 3) -> one video (T, H', W', 3), `columns` clips a row, small clips enlarged; with `captions`
    one stands above each clip."""
    factor = enlarge(clips.shape[2])
    if not any(captions):
        return tile(clips, columns, enlarge=factor)
    larger = clips.repeat(factor, axis=2).repeat(factor, axis=3)
    pairs = zip(larger, captions, strict=True)
    return tile(np.stack([labelled_columns(clip, [caption]) for clip, caption in pairs]), columns)


def titled(video: np.ndarray, heads: dict[int, str]) -> np.ndarray:
    """A video (T, H, W, 3) with a line of text above it; heads: number of a frame -> the text from there on."""
    spans = pairwise([*heads, len(video)])
    return np.concatenate([labelled_columns(video[start:end], [heads[start]]) for start, end in spans])


def strips(clips: np.ndarray, captions: Sequence[str], heads: dict[int, str]) -> np.ndarray:
    """uint8 (N, T, H, W, 3) -> a picture (H', W', 3) with a row a clip, LINE frames in a line, small clips enlarged;
    captions: beside each clip; heads: number of a frame -> the text above it."""
    num, length = clips.shape[:2]
    lines = range(0, length, LINE)
    if len(lines) > 1:
        clips = np.pad(clips, [(0, 0), (0, len(lines) * LINE - length), (0, 0), (0, 0), (0, 0)])
        clips = clips.reshape(num * len(lines), LINE, *clips.shape[2:])
    later = [" ".join(filter(None, [heads.get(start), f"frame {start + 1}"])) for start in lines[1:]]
    rows = [label for caption in captions for label in (caption, *later)]
    picture = filmstrips(clips, enlarge=enlarge(clips.shape[2]))
    width = picture.shape[1]
    if any(rows):
        picture = labelled_rows(picture, rows)
    above = [heads.get(number, "") for number in range(clips.shape[1])]
    return labelled_columns(picture, above, picture.shape[1] - width)


def check_grid(out: Path, num: int, size: int, remedy: str) -> None:
    """Raises InputError that ends in `remedy` if the grid of `num` clips is too large for the codec of `out`."""
    cell, most = size * enlarge(size) + GAP, MAX_SIDE.get(out.suffix, math.inf)
    width, height = ROW * cell, BAND + math.ceil(num / ROW) * (cell + BAND)
    if max(width, height) > most:
        sides = f"{num} clips make a grid of {width}x{height} px"
        raise InputError(f"{out}: {sides}, a side of {out.suffix} has at most {most}; {remedy}")


def enlarge(size: int) -> int:
    """Integer enlargement for showing clips of `size` pixels."""
    return max(1, ENLARGED // size)


def write_kind(
    folder: Path, gan: VideoGAN, kind: str, strips: np.ndarray, rows: np.ndarray, labels: list[int],
    caption: str, columns: Sequence[str] = (),
) -> dict:  # fmt: skip
    """Writes <kind>.png (`strips`: (R, M, H, W, 3)) and <kind>.mp4 (`rows`: (R, N, T, H, W, 3)): beside both the
    classes `labels` of rows, above both the names of `columns`, and how many classes are shown."""
    left_out = len(labels) < gan.num_classes
    title = "generated" + (f", {len(labels)} of {gan.num_classes} classes" if left_out else "")
    names, titles = gan.titles(labels), drawable(gan.titles(labels), gan.classes)

    def framed(cells: np.ndarray) -> np.ndarray:
        whole = labelled_rows(cells, titles) if any(titles) else cells
        if columns:
            whole = labelled_columns(whole, columns, whole.shape[-2] - cells.shape[-2])
        return labelled_columns(whole, [title])

    write_image(folder / f"{kind}.png", framed(filmstrips(strips, enlarge=enlarge(gan.size))))
    film = grid(rows.reshape(-1, *rows.shape[2:]), rows.shape[1])
    write_video(folder / f"{kind}.mp4", framed(film), fps=gan.fps)
    files = {"png": f"{kind}.png", "mp4": f"{kind}.mp4"}
    return {"kind": kind, **files, "caption": caption, "rows": legend(names, gan.classes)}


def write_clip(folder: Path, gan: VideoGAN, label: int, title: str, clip: np.ndarray, seed: int) -> dict:
    """Writes one clip (T, H, W, 3), enlarged too: H.264 halves the resolution of colour, and 32 px would smear.

    The number in the file's name tells "a b" from "a_b".
    """
    safe = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in title) or "clip"
    name = f"clips/{label:03d}-{safe}.mp4"
    write_video(folder / name, tile(clip[None], 1, gap=0, enlarge=enlarge(gan.size)), fps=gan.fps)
    return {"class": title, "mp4": name, "seed": seed}


def write_predictions(gan: VideoGAN, clips: Clips, folder: Path, *, seed: int = 0, num_clips: int = 6) -> None:
    """Fills `folder` with prediction.png/.mp4 and samples.json: below each other how clips went on, and two guesses."""
    some = np.linspace(0, len(clips) - 1, min(num_clips, len(clips))).astype(int)
    real, labels = clips.read(some)[:, : gan.num_frames], clips.labels[some]
    seen, c = torch.from_numpy(real), torch.from_numpy(labels)
    guesses = [gan.predict(seen, c, seed + k).numpy() for k in range(2)]
    rows = np.stack([real, *guesses], 1).reshape(-1, *real.shape[1:])
    classes = [clips.classes[label] if clips.classes else "clip" for label in labels]
    names = drawable(classes, clips.classes)
    guessed = ["predicted", "predicted again"]
    titles = [title for name in names for title in (f"{name}, real", *guessed)]
    heads = {0: "frames given", gan.context: "frames predicted"}
    write_image(folder / "prediction.png", strips(rows, titles, heads))
    cells = grid(rows, 3)
    film = labelled_rows(cells, names)
    film = labelled_columns(film, ["real", *guessed], film.shape[-2] - cells.shape[-2])
    write_video(folder / "prediction.mp4", titled(film, heads), fps=gan.fps)
    kind = {
        "kind": "prediction", "png": "prediction.png", "mp4": "prediction.mp4",
        "rows": [row for name in legend(classes, clips.classes) for row in (f"{name}, real", *guessed)],
        "caption": f"The first {gan.context} frames of each row were seen. Below each held-out clip: how the model "
        "goes on, from two z. In the video, from left to right: the clip, and both guesses.",
    }  # fmt: skip
    write_json(folder / "samples.json", {"kinds": [kind], "clips": [], "fps": gan.fps, "seed": seed})
