"""Elementwise operations: by our kernels (hrvgan/ops/cpu), by torch's operations, and a copy for scale.

    python -m benchmarks.chains [--size 64] [--rounds 7]

`norm` is pixel norm, modulation and ReLU, `pool` LeakyReLU and average pooling, as at the upper levels of HRVGAN's
ladder. `plain` is one operation after the other, `pieces` what hrvgan.models does where there are no kernels,
and `copy` reads and writes the input once, which a chain must at least. Prints medians of interleaved rounds in
milliseconds, forward, and forward and backward; all compute the same function (tests/test_chains.py).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.kernels import arguments, milliseconds
from hrvgan.models.hrvgan import frames_at, num_channels
from hrvgan.nn.layers import PixelNorm
from hrvgan.ops import leaky_relu_pool as pooling
from hrvgan.ops import pixel_norm_act as fused

FACTOR = (1, 2, 2)


def plain_norm(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    return F.relu(torch.addcmul(shift, PixelNorm()(x), gain))


def plain_pool(x: Tensor) -> Tensor:
    return F.avg_pool3d(F.leaky_relu(x, 0.2).float(), FACTOR).to(x.dtype)  # torch pools no bfloat16 in 3-D


def measure(chain: Callable, plain: Callable, leaves: list[Tensor], rounds: int) -> dict[str, list[float]]:
    """Medians in ms, forward, and forward and backward."""
    x, copied = leaves[0].detach(), torch.empty_like(leaves[0])
    detached = [leaf.detach() for leaf in leaves]
    g = torch.randn_like(plain(*detached))
    tasks = {("copy", "forward"): (lambda: copied.copy_(x), False)}
    for kind, run, ours in (("plain", plain, False), ("pieces", chain, False), ("kernels", chain, True)):
        tasks[kind, "forward"] = lambda run=run: run(*detached), ours
        tasks[kind, "both"] = lambda run=run: torch.autograd.grad(run(*leaves), leaves, g), ours
    found: dict[str, list[float]] = {}
    for (kind, _), median in milliseconds(tasks, rounds).items():
        found.setdefault(kind, []).append(median)
    return found


def main() -> None:
    given = arguments(__doc__)
    n, size = given.batch, given.size
    print("ms forward, and forward and backward\n")
    for dtype in (torch.float32, torch.bfloat16):
        for px in (size, size // 2):
            c = num_channels(px, 1.0)
            x = torch.randn(n, c, frames_at(px, "paper"), px, px, dtype=dtype)
            x = x.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
            gain, shift = (torch.randn(n, c, 1, 1, 1, dtype=dtype).requires_grad_() for _ in range(2))
            cases = {
                "norm": (fused.pixel_norm_modulated, plain_norm, [x, gain, shift]),
                "pool": (lambda x: pooling.leaky_relu_pooled(x, 0.2, FACTOR), plain_pool, [x]),
            }
            for name, (chain, plain, leaves) in cases.items():
                medians = measure(chain, plain, leaves, given.rounds).items()
                row = ",  ".join(f"{kind} {' '.join(f'{ms:.1f}' for ms in each)}" for kind, each in medians)
                print(f"{str(dtype)[6:]:>8} {name} {c:>3} channels at {px:>3} px:  {row}", flush=True)


if __name__ == "__main__":
    main()
