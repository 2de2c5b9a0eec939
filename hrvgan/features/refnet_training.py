"""Training and calibration of the reference network, on real clips alone."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hrvgan.features.perturbations import PRETEXT
from hrvgan.features.refnet import RefNet
from hrvgan.progress import bar

SKETCH = (2, 4, 4)  # Frames, rows and columns of the coarse view.
# (rng, rows) -> uint8 clips (n, T, H, W, 3) and what the network shall answer, int64 (n,).
Task = Callable[[np.random.Generator, np.ndarray], tuple[np.ndarray, np.ndarray]]


def label_task(clips) -> Task:
    """Which class is it? `clips` is a Clips, or anything with `.read(rows)` and `.labels`."""
    return lambda rng, rows: (clips.read(rows), clips.labels[rows])


def pretext_task(clips) -> Task:
    """What was done to the time of the clip (clip order and playback speed)? Needs no labels."""
    transforms = list(PRETEXT.values())

    def examples(rng: np.random.Generator, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        answers = rng.permutation(np.arange(len(rows)) % len(transforms))
        return np.stack(
            [
                transforms[answer](clip[None], rng)[0]
                for answer, clip in zip(answers, clips.read(rows), strict=True)
            ]
        ), answers

    return examples


def fit(
    net: RefNet,
    task: Task,
    num_clips: int,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    sketch_weight: float,
    seed: int,
) -> None:
    """Train `net` in place: cross-entropy of `task` over `num_clips` clips, and a linear sketch of the clip.

    Deterministic by `seed` on one machine with one number of threads.
    """
    rng, device = np.random.default_rng(seed), net.rms.device
    sketch = nn.Linear(net.head.in_features, 3 * math.prod(SKETCH), device=device)
    optimizer = torch.optim.AdamW([*net.parameters(), *sketch.parameters()], lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
    rows = _epochs(num_clips, batch_size, rng)
    net.train()
    for _ in (progress := bar(range(steps), "refnet", unit="step")):
        clips, answers = task(rng, next(rows))
        video = augment(net.prepare(torch.as_tensor(clips, device=device)), rng)
        features, logits = net.read_out(video)
        loss = F.cross_entropy(logits, torch.as_tensor(answers, device=device))
        loss = loss + sketch_weight * unexplained(sketch(features), video)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    net.eval()


def unexplained(drawn: Tensor, video: Tensor) -> Tensor:
    """The share of the variance of a coarse view of `video` (N, C, T, H, W) that `drawn` does not explain.

    Class labels alone teach a network to forget what differs within a class, and so not to miss variety.
    """
    view = F.adaptive_avg_pool3d(video, SKETCH).flatten(1)
    return F.mse_loss(drawn, view) / view.var(correction=0).clamp(min=1e-4)


def _epochs(num_clips: int, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows in batches for ever, each clip once before any comes again."""
    waiting = np.empty(0, dtype=np.int64)
    while True:
        while len(waiting) < batch_size:
            waiting = np.concatenate([waiting, rng.permutation(num_clips)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def augment(video: Tensor, rng: np.random.Generator) -> Tensor:
    """Shift each clip of float (N, C, T, H, W) by up to an eighth and change its contrast by up to a fifth.

    The same for all its frames, and no flip: direction may be the class.
    """
    n, _, _, height, width = video.shape
    dy, dx = height // 8, width // 8
    padded = F.pad(video, (dx, dx, dy, dy, 0, 0), mode="replicate")
    tops, lefts = rng.integers(2 * dy + 1, size=n), rng.integers(2 * dx + 1, size=n)
    shifted = [
        clip[..., y : y + height, x : x + width] for clip, y, x in zip(padded, tops, lefts, strict=True)
    ]
    contrast = torch.as_tensor(
        rng.uniform(0.8, 1.2, size=(n, 1, 1, 1, 1)), dtype=video.dtype, device=video.device
    )
    return (torch.stack(shifted) * contrast).clamp(-1, 1)


def calibrate(logits: np.ndarray, answers: np.ndarray) -> float:
    """The temperature that minimises the cross-entropy of held-out logits (N, K) (Guo et al. 2017, eq. 9).

    Targets are smoothed by 1 / (N + 2) (Platt 1999), or N right answers would make the network certain.
    """
    logits = torch.as_tensor(logits, dtype=torch.float64)
    truth = F.one_hot(torch.as_tensor(answers), logits.shape[1]).double()
    doubt = 1 / (len(logits) + 2)
    target = (1 - doubt) * truth + doubt * (1 - truth) / max(1, logits.shape[1] - 1)
    return math.exp(golden_section(lambda t: F.cross_entropy(logits / math.exp(t), target).item(), -4.0, 4.0))


def golden_section(
    function: Callable[[float], float], low: float, high: float, tolerance: float = 1e-6
) -> float:
    """Where a function with one minimum in [low, high] has it (Kiefer 1953)."""
    ratio = (math.sqrt(5) - 1) / 2
    while high - low > tolerance:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if function(left) < function(right) else (left, high)
    return (low + high) / 2
