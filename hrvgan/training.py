"""One loop for every model. It knows when to step, never what is minimised."""

import copy
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from hrvgan import checkpoint
from hrvgan.datasets.clips import BatchStream, Clips
from hrvgan.errors import InputError
from hrvgan.layout import to_float
from hrvgan.models.base import Batch, Phase, VideoGAN

PRECISIONS = ("auto", "float32", "bfloat16")


def train(
    gan: VideoGAN,
    clips: Clips,
    state: str | Path,
    *,
    steps: int = 1000,
    batch_size: int = 16,
    seed: int = 0,
    ema: float = 0.995,
    flip: bool = False,
    precision: str = "auto",
    device: str = "auto",
    log_every: int = 10,
    save_every: int = 100,
    sample_every: int = 200,
    samples_per_class: int = 2,
    log_losses: Callable[[int, dict[str, float]], None] = lambda step, values: None,
    log_samples: Callable[[int, Tensor], None] = lambda step, clips: None,
) -> tuple[nn.Module, list[dict]]:
    """Trains `gan` in place on `clips` for `steps` iterations in all; returns the EMA of G, and the history.

    Everything random in an iteration follows from (seed, step), so that the file `state`, written every `save_every`
    steps, is enough to go on after a kill with the same bits. A `state` that is already there is continued.

    Args:
        ema: decay of the moving average of G per step (with a warm-up: short histories average less).
        precision: float32, bfloat16 (autocast), or auto: bfloat16 where the device multiplies it faster.
        log_losses: called every `log_every` steps with the means since the last call, and the speed.
        log_samples: called every `sample_every` steps with clips (n, T, H, W, 3) uint8 of the EMA, same z each time.

    Raises:
        InputError: for clips that do not fit the model, and when a loss is no longer finite; `state` is then the last
            good one.
    """
    check(gan, clips, batch_size, precision, log_every, save_every)
    gan.to(pick_device(device))
    average = copy.deepcopy(gan.G).requires_grad_(False).eval()
    phases, history = gan.phases(), []
    start, history = checkpoint.resume(state, gan, average, phases)
    if start > steps:
        raise InputError(
            f"{state}: trained for {start} steps already, {steps} asked for; "
            "raise train.steps, or remove the file to train anew"
        )
    stream = BatchStream(clips, batch_size=batch_size, seed=seed, num_frames=gan.num_frames, flip=flip)
    autocast = torch.autocast(gan.device.type, torch.bfloat16, enabled=use_bfloat16(precision, gan.device))
    meter = Meter(history)
    bar = tqdm(range(start, steps), "train", steps, initial=start, unit="it", dynamic_ncols=True)
    with ThreadPoolExecutor(1) as reader:
        upcoming = reader.submit(stream.batch, start)
        for step in bar:
            # Take a batch, and have the next one read meanwhile.
            waited = time.perf_counter()
            frames, labels = upcoming.result()
            meter.waited(time.perf_counter() - waited)
            upcoming = reader.submit(stream.batch, step + 1)
            torch.manual_seed(seed * 1_000_003 + step)
            batch = Batch(
                to_float(torch.from_numpy(frames).to(gan.device)),
                torch.from_numpy(labels).to(gan.device),
                step,
            )

            # Train each part of the model in its turn.
            gan.train()
            for phase in phases:
                meter.add(phase.name, update(gan, phase, batch, autocast))
            update_average(average, gan.G, min(ema, (1 + step) / (10 + step)))

            # Report and save.
            done = step + 1
            if done % log_every == 0 or done == steps:
                values = meter.row(done)
                if not all(map(torch.isfinite, map(torch.tensor, values.values()))):
                    raise InputError(diverged(state, done, values))
                log_losses(done, {**values, **meter.speed(len(labels))})
                bar.set_postfix_str("  ".join(f"{k[5:]} {v:.2f}" for k, v in values.items()), refresh=False)
            if done % sample_every == 0 or done == steps:
                log_samples(done, preview(gan, average, samples_per_class))
            if done % save_every == 0 or done == steps:
                checkpoint.save_state(state, gan, average, phases, done, history)
    gan.G.load_state_dict(average.state_dict())
    return average, history


def update(gan: VideoGAN, phase: Phase, batch: Batch, autocast: torch.autocast) -> dict[str, Tensor]:
    """One optimiser step of `phase`; returns its loss terms, detached."""
    gan.requires_grad_(False)
    phase.module.requires_grad_(True)
    with autocast:
        terms = phase.loss(batch)
    sum(terms.values()).backward()
    phase.optimizer.step()
    phase.optimizer.zero_grad(set_to_none=True)
    phase.after(batch.step)
    return {name: term.detach() for name, term in terms.items()}


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - decay)
    for kept, new in zip(average.buffers(), module.buffers(), strict=True):
        kept.copy_(new)  # Running statistics of batch norm are averages already.


def preview(gan: VideoGAN, average: nn.Module, per_class: int) -> Tensor:
    """uint8 (n, T, H, W, 3): `per_class` clips of each class, drawn from the average with a fixed seed."""
    trained, gan.G = gan.G, average
    clips = gan.sample(per_class * max(gan.num_classes, 4), seed=0)
    gan.G = trained
    return clips


class Meter:
    """Means of loss terms between two reports. Losses go to the history; timings do not, they never repeat."""

    def __init__(self, history: list[dict]):
        self.history, self.sums, self.counts = history, {}, {}
        self.steps, self.wait, self.since = 0, 0.0, time.perf_counter()

    def waited(self, seconds: float) -> None:
        self.wait += seconds
        self.steps += 1

    def add(self, phase: str, terms: dict[str, Tensor]) -> None:
        for name, term in terms.items():
            key = f"loss/{phase}/{name}"
            self.sums[key] = (
                self.sums.get(key, 0) + term
            )  # Stays on the device: reading it would wait for it.
            self.counts[key] = self.counts.get(key, 0) + 1

    def row(self, step: int) -> dict[str, float]:
        values = {key: float(total) / self.counts[key] for key, total in self.sums.items()}
        self.history.append({"step": step, **values})
        self.sums, self.counts = {}, {}
        return values

    def speed(self, batch_size: int) -> dict[str, float]:
        elapsed = time.perf_counter() - self.since
        values = {
            "speed/clips_per_s": self.steps * batch_size / elapsed,
            "speed/data_wait": self.wait / elapsed,
        }
        self.steps, self.wait, self.since = 0, 0.0, time.perf_counter()
        return values


def check(
    gan: VideoGAN, clips: Clips, batch_size: int, precision: str, log_every: int, save_every: int
) -> None:
    """Everything that can be known to fail is refused before anything starts."""
    frames, height = clips.shape[:2]
    if height != gan.size or frames < gan.num_frames:
        raise InputError(
            f"{clips.folder}: clips of {frames} frames of {height} px, but the model makes {gan.num_frames} frames of "
            f"{gan.size} px; set the size of one to the other's, and extract.num_frames to {gan.num_frames} or more"
        )
    if gan.num_classes not in (0, clips.num_classes):
        raise InputError(f"{clips.folder}: {clips.num_classes} classes, but the model has {gan.num_classes}")
    if len(clips) < batch_size:
        raise InputError(
            f"{clips.folder}: {len(clips)} clips to train on; lower train.batch_size ({batch_size})"
        )
    if precision not in PRECISIONS:
        raise InputError(f"train.precision {precision!r} is not known; choose one of {', '.join(PRECISIONS)}")
    if save_every % log_every:
        raise InputError(
            f"train.save_every ({save_every}) must be a multiple of train.log_every ({log_every}), "
            "so that a state holds whole rows of the history"
        )


def pick_device(name: str) -> torch.device:
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def use_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether to autocast. A CPU gains by it only with matrix units (AMX); others lose."""
    fast = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
    return precision == "bfloat16" or (precision == "auto" and fast)


def diverged(state: str | Path, step: int, values: dict[str, float]) -> str:
    return (
        f"{state}: training diverged by step {step} ({values}); the state kept is the last good one; "
        "lower the learning rates or raise r1_gamma in params.yaml"
    )
