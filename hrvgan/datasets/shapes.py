"""Synthetic data set: moving shapes, rendered and encoded to real video files.

A class is a shape and its direction of motion. Speed, position, size and colour vary within a class. With `textured`,
discs have spots, bars have stripes, and the ground is a weave of fine threads, so that resolution can be seen.

Files are laid out, named and encoded like UCF101's, `<Class>/v_<Class>_gNN_cMM.avi`, xvid with B-frames, so that they
take the same path through extraction.
"""

import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hrvgan.extraction.videos import Video
from hrvgan.parallel import ordered_map
from hrvgan.video.io import encode

DIRECTIONS = {"Left": (-1, 0), "Right": (1, 0), "Up": (0, -1), "Down": (0, 1)}
COLOURS = ((255, 92, 72), (72, 222, 118), (86, 148, 255))
BACKGROUND = (14, 16, 30)
FPS = 12


def disc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to a disc of radius 1, negative inside."""
    return np.hypot(x, y) - 1


def bar(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to an upright bar, 0.9 wide and 2.6 high, negative inside."""
    return np.maximum(abs(x) - 0.45, abs(y) - 1.3)


def spots(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to round spots on a square lattice of 0.4, negative inside; in radii of the shape."""
    return np.hypot((x + 0.2) % 0.4 - 0.2, (y + 0.2) % 0.4 - 0.2) - 0.11


def stripes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to slanted stripes, 0.12 wide and 0.24 apart, negative inside; in radii of the shape."""
    return abs((x + y) / np.sqrt(2) % 0.24 - 0.12) - 0.06


SHAPES = {"Disc": disc, "Bar": bar}
TEXTURES = {"Disc": spots, "Bar": stripes}


def fetch(
    out: Path,
    *,
    num_groups: int = 26,
    videos_per_group: int = 3,
    size: int = 64,
    num_frames: int = 12,
    textured: bool = False,
    seed: int = 0,
    workers: int | str = "auto",
) -> list[Video]:
    """Render and encode `videos_per_group` videos of each class in each group; output bytes are deterministic.

    Frames are `size` pixels wide and high. A shape crosses the frame in `num_frames` frames, whatever their number.
    Each group has its own speed and timing.
    """
    make = functools.partial(_make, out=out, size=size, num_frames=num_frames, textured=textured, seed=seed)
    groups, numbers = range(1, num_groups + 1), range(1, videos_per_group + 1)
    jobs = list(itertools.product(groups, SHAPES, DIRECTIONS, numbers))
    return list(ordered_map(make, jobs, workers=workers, desc="draw shapes", unit="video"))


def class_names(**options) -> list[str]:
    """Names of the classes, whatever the options of `fetch`."""
    return sorted(f"{shape}{direction}" for shape in SHAPES for direction in DIRECTIONS)


def _make(job: tuple[int, str, str, int], out: Path, size: int, num_frames: int, textured: bool, seed: int) -> Video:
    number, shape, direction, copy = job
    name, group = f"{shape}{direction}", f"g{number:02d}"
    path = out / name / f"v_{name}_{group}_c{copy:02d}.avi"
    of_group = np.random.default_rng([seed, *group.encode()])
    of_video = np.random.default_rng([seed, *path.stem.encode()])
    # Lengths are in frame widths; `middle` is the position along the path at half time.
    travel = of_group.uniform(0.74, 0.86) + of_video.uniform(-0.04, 0.04)
    middle = 0.5 + of_group.uniform(-0.03, 0.03) + of_video.uniform(-0.03, 0.03)
    centers = straight(DIRECTIONS[direction], travel, middle, of_video.uniform(0.28, 0.72), num_frames)
    radius, colour = of_video.uniform(0.19, 0.26), COLOURS[of_video.integers(len(COLOURS))]
    ground, texture = np.array(BACKGROUND, np.float32), None
    if textured:
        ground, texture = weave(size), TEXTURES[shape]
    frames = render(SHAPES[shape], centers, ground, radius=radius, colour=colour, size=size, texture=texture)
    encode(path, frames, fps=FPS, vcodec="mpeg4", vtag="xvid", pix_fmt="yuv420p", bf=2, **{"q:v": 2})
    return Video(path, name, group, video_id=f"{name}/{path.name}")


def straight(direction: tuple[int, int], travel: float, middle: float, side: float, steps: int) -> np.ndarray:
    """Centers (T, 2) of a shape that moves by `travel` along `direction`, at `side` across it, in frame widths."""
    direction = np.array(direction)
    along = np.linspace(-0.5, 0.5, steps)[:, None] * travel + middle - 0.5
    return np.where(direction == 0, side, 0.5 + along * direction)


def weave(size: int) -> np.ndarray:
    """A ground of fine diagonal threads, 1/16 of the frame apart, brighter at the bottom; float32 (size, size, 3)."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = axis[None, :], axis[:, None]
    threads = np.maximum(np.cos(32 * np.pi * (x + y)), np.cos(32 * np.pi * (x - y)))
    return np.array(BACKGROUND, np.float32) * (0.8 + y + 2 * np.maximum(threads, 0) ** 2)[..., None]


def render(
    shape: Callable[[np.ndarray, np.ndarray], np.ndarray], centers: np.ndarray, ground: np.ndarray, *, radius: float,
    colour: tuple[int, ...], size: int, texture: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:  # fmt: skip
    """Render `shape` at `centers` (T, 2) on `ground` (3,) or (size, size, 3), uint8 (T, size, size, 3).

    Edges, and those of a `texture` that moves with the shape and halves its brightness, are antialiased over one pixel.
    """
    axis, centers = (np.arange(size, dtype=np.float32) + 0.5) / size, centers.astype(np.float32)
    x, y = ((axis - centers[:, side, None]) / np.float32(radius) for side in (0, 1))  # (T, size)
    x, y = x[:, None, :], y[:, :, None]

    def cover(distance: np.ndarray) -> np.ndarray:
        return np.clip(0.5 - distance * np.float32(radius * size), 0, 1)[..., None]

    paint = np.array(colour, np.float32)
    if texture is not None:
        paint = paint * (1 - np.float32(0.6) * cover(texture(x, y)))
    return (ground + cover(shape(x, y)) * (paint - ground)).round().astype(np.uint8)
