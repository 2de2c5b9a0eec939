"""Fused elementwise operations: plain torch, our kernels (hrvgan/ops/cpu), and a copy for scale.

    python -m benchmarks.elementwise [--size 64] [--rounds 7]

`norm` is pixel norm, modulation and ReLU, `pool` LeakyReLU and average pooling, as at the upper levels of HRVGAN's
ladder. `copy` reads and writes the input once, the least that an operation must do. Prints medians of interleaved
rounds in milliseconds, forward, and forward and backward; all compute the same function (tests/test_elementwise.py).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.kernels import arguments, milliseconds
from hrvgan.models.hrvgan import frames_at, num_channels
from hrvgan.ops.elementwise import leaky_relu_pool, pixel_norm_act

FACTOR = (1, 2, 2)


def measure(operation: Callable, leaves: list[Tensor], rounds: int) -> dict[str, list[float]]:
    """Medians in ms, forward, and forward and backward."""
    x, copied = leaves[0].detach(), torch.empty_like(leaves[0])
    detached = [leaf.detach() for leaf in leaves]
    g = torch.randn_like(operation(*detached))
    tasks = {("copy", "forward"): (lambda: copied.copy_(x), False)}
    for name, enabled in (("torch", False), ("kernels", True)):
        tasks[name, "forward"] = lambda: operation(*detached), enabled
        tasks[name, "both"] = lambda: torch.autograd.grad(operation(*leaves), leaves, g), enabled
    medians: dict[str, list[float]] = {}
    for (name, _), median in milliseconds(tasks, rounds).items():
        medians.setdefault(name, []).append(median)
    return medians


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
                "norm": (pixel_norm_act, [x, gain, shift]),
                "pool": (lambda x: leaky_relu_pool(x, 0.2, FACTOR), [x]),
            }
            for name, (operation, leaves) in cases.items():
                medians = measure(operation, leaves, given.rounds).items()
                row = ",  ".join(f"{kind} {' '.join(f'{ms:.1f}' for ms in each)}" for kind, each in medians)
                print(f"{str(dtype)[6:]:>8} {name} {c:>3} channels at {px:>3} px:  {row}", flush=True)


if __name__ == "__main__":
    main()
