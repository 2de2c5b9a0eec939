"""From real clips to latents: the encoder's answer (section 4.2), refined by gradient descent on the pixels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hrvgan.errors import InputError
from hrvgan.nn.base import VideoGAN
from hrvgan.progress import bar


def invert(
    gan: VideoGAN, clips: Tensor, c: Tensor, *, steps: int = 200, lr: float = 0.05, seed: int = 0
) -> Tensor:
    """Latents from which `gan.generate(z, c)` draws `clips` (N, 3, T, H, W) in [-1, 1] as nearly as was found.

    It starts from E(clips) where the model has an encoder, else from a random z, and takes `steps` steps of Adam on
    the mean squared error; of all that it saw it returns the best for each clip. Zero steps: the encoder alone.
    """
    if clips.shape[2:] != (gan.num_frames, gan.size, gan.size):
        raise InputError(
            f"clips of {tuple(clips.shape[2:])} (frames, height, width); the model makes "
            f"{(gan.num_frames, gan.size, gan.size)}: cut and resize them first"
        )
    gan.eval().requires_grad_(False)
    clips, c = clips.to(gan.device), c.to(gan.device)
    z = start(gan, clips, seed).requires_grad_()
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


def start(gan: VideoGAN, clips: Tensor, seed: int) -> Tensor:
    """E's latents at the length of random ones, since G looks at their direction alone; or random ones."""
    if getattr(gan.G, "E", None) is None:
        return gan.latent(len(clips), seed).to(gan.device)
    with torch.no_grad():
        z = gan.encode(clips)
    return F.normalize(z, dim=-1) * z.shape[-1] ** 0.5
