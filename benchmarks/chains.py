"""Chains of element by element operations: by our kernels (hrvgan/chains), by torch's operations, and a copy for scale.

    python -m benchmarks.chains [--size 64] [--rounds 7]

`norm` is pixel norm, modulation and ReLU, `pool` LeakyReLU and average pooling, as at the upper levels of HRVGAN's
ladder. `plain` is one operation after the other, `pieces` what hrvgan.models does where there are no kernels,
and `copy` reads and writes the input once, which a chain must at least. Prints medians of interleaved rounds in
milliseconds, forward, and forward and backward; all compute the same function (tests/test_chains.py).
"""

import argparse
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.training_step import BATCH, seconds
from hrvgan.allocator import keep_freed_memory
from hrvgan.models import fused, pooling
from hrvgan.models.blocks import PixelNorm
from hrvgan.models.hrvgan import frames_at, num_channels
from hrvgan.native import launching

FACTOR = (1, 2, 2)


def plain_norm(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    return F.relu(torch.addcmul(shift, PixelNorm()(x), gain))


def plain_pool(x: Tensor) -> Tensor:
    return F.avg_pool3d(F.leaky_relu(x, 0.2).float(), FACTOR).to(x.dtype)  # torch pools no bfloat16 in 3-D


def measure(chain: Callable, plain: Callable, leaves: list[Tensor], rounds: int) -> dict[str, list[float]]:
    """Medians in ms, forward, and forward and backward."""
    x, copied = leaves[0], torch.empty_like(leaves[0])
    detached = [leaf.detach() for leaf in leaves]
    g = torch.randn_like(plain(*detached))
    kinds = {"plain": (plain, False), "pieces": (chain, False), "kernels": (chain, True)}
    times = {kind: ([], []) for kind in (*kinds, "copy")}
    for _ in range(rounds + 1):
        for kind, (run, launching.enabled) in kinds.items():
            forward, both = times[kind]
            forward.append(1e3 * seconds(lambda run=run: run(*detached)))
            both.append(1e3 * seconds(lambda run=run: torch.autograd.grad(run(*leaves), leaves, g)))
        for each in times["copy"]:
            each.append(1e3 * seconds(lambda: copied.copy_(x.detach())))
    return {kind: [statistics.median(each[1:]) for each in pair] for kind, pair in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, choices=list(BATCH), default=64)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    keep_freed_memory()
    n, size = BATCH[arguments.size], arguments.size
    print(f"batch {n}, {torch.get_num_threads()} threads; ms forward, and forward and backward\n")
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
                row = [
                    f"{kind} {forward:.1f} {both:.1f}"
                    for kind, (forward, both) in measure(chain, plain, leaves, arguments.rounds).items()
                ]
                print(
                    f"{str(dtype)[6:]:>8} {name} {c:>3} channels at {px:>3} px:  {',  '.join(row)}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
