"""One training iteration of any model."""

import time
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor

from hrvgan.clipstore.batches import BatchStream, prefetch
from hrvgan.clipstore.clips import Clips
from hrvgan.clipstore.layout import to_float
from hrvgan.nn.base import Batch, Phase, VideoGAN
from hrvgan.nn.optim import clip_norm, scale_rates
from hrvgan.ops import batch_rng
from hrvgan.training import distributed
from hrvgan.training.ema import update_average
from hrvgan.training.session import Meter, Session

T = TypeVar("T")
PRECISIONS = ("auto", "float32", "bfloat16")


def iterations(
    session: Session, clips: Clips, steps: int, *, batch_size: int, accumulate: int, seed: int, ema: float,
    lr_decay: int, clip_grad: float, flip: bool, class_balanced: bool,
) -> Iterator[int]:  # fmt: skip
    """Trains up to step `steps`; yields the number of steps done after each."""
    gan, meter, device = session.gan, session.meter, session.gan.device
    rank, world_size = distributed.rank(), distributed.world_size()
    stream = BatchStream(
        clips, batch_size=batch_size // world_size, seed=seed, num_frames=gan.num_frames, flip=flip,
        class_balanced=class_balanced, rank=rank, world_size=world_size,
    )  # fmt: skip
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=session.bfloat16)
    ahead = prefetch(stream, session.step, steps, device)
    for step, frames, labels in timed(ahead, meter, batch_size):
        parts = split(frames, labels, step, accumulate)
        gan.train()
        for number, phase in enumerate(session.phases):
            scale_rates(phase.optimizer, 1 - step / lr_decay if lr_decay else 1.0)
            meter.add(update(gan, phase, parts, autocast, clip_grad, (seed, step, number)))
        update_average(session.average, gan.G, min(ema, (1 + step) / (10 + step)))

        session.step = step + 1
        yield session.step


def timed(batches: Iterator[T], meter: Meter, clips: int) -> Iterator[T]:
    """Passes batches through and reports to the meter how long each was waited for."""
    while True:
        since = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        meter.waited(time.perf_counter() - since, clips)
        yield batch


def split(frames: Tensor, labels: Tensor, step: int, accumulate: int) -> list[Batch]:
    """Splits a batch, frames uint8 (N, T, H, W, 3) and labels (N,), into micro-batches of this process."""
    first, count = distributed.rank() * accumulate, distributed.world_size() * accumulate
    pairs = zip(frames.chunk(accumulate), labels.chunk(accumulate), strict=True)
    return [Batch(to_float(real), c, step, part=(first + i, count)) for i, (real, c) in enumerate(pairs)]


def update(
    gan: VideoGAN, phase: Phase, parts: list[Batch], autocast: torch.autocast, clip_grad: float, seed: tuple
) -> dict[str, Tensor]:
    """One optimizer step of `phase` on the mean gradient of `parts` over all processes. Returns values to log: loss
    terms, notes of the model, the norm of the gradient."""
    gan.requires_grad_(False)
    phase.module.requires_grad_(True)
    log: dict[str, Tensor] = {}
    for batch in parts:
        with batch_rng.part(*batch.part, seed), autocast:
            terms = phase.loss(batch)
        (sum(terms.values()) / len(parts)).backward()
        values = {f"loss/{phase.name}/{name}": term for name, term in terms.items()} | batch.notes
        batch.notes = {}
        for key, value in values.items():
            log[key] = log.get(key, 0) + value.detach() / len(parts)
    gradients = [p.grad for p in phase.module.parameters() if p.grad is not None]
    distributed.average_(gradients)
    log[f"grad/{phase.name}"] = clip_norm(gradients, clip_grad)
    phase.optimizer.step()
    phase.optimizer.zero_grad(set_to_none=True)
    phase.after(parts[0].step)
    return log


def use_bfloat16(precision: str, device: torch.device) -> bool:
    """True if training runs under autocast to bfloat16. "auto": only with native bfloat16 matmul, that is on a GPU of
    compute capability 8 or higher, or a CPU with AMX or AVX512_BF16."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
