"""HRVGAN's convolutions by our kernels (hrvgan/ops/cpu) and by torch's, at the levels of its ladder.

    python -m benchmarks.convolutions [--size 64] [--rounds 7]

Forward, and backward by everything: `same` is 3x3x3 at stride 1, `up` with nearest upsampling before it, which torch
computes as one transposed convolution. Prints medians of interleaved rounds in milliseconds, and their ratio; both
compute the same function (tests/test_winograd.py).
"""

import torch
from torch import nn

from benchmarks.kernels import arguments, milliseconds
from hrvgan.models.hrvgan import frames_at, ladder, num_channels, scale
from hrvgan.ops.conv3d import Conv3d, UpConv3d
from hrvgan.ops.cpu import winograd_conv


def measure(layer: nn.Conv3d, x: torch.Tensor, rounds: int) -> list[list[float]]:
    """Medians in ms of torch and of ours: forward, and forward and backward."""
    leaves = [x, *layer.parameters()]
    g = torch.randn_like(layer(x))
    runs = [lambda: layer(x.detach()), lambda: torch.autograd.grad(layer(x), leaves, g)]
    medians = milliseconds({(i, ours): (run, ours) for i, run in enumerate(runs) for ours in (False, True)}, rounds)
    return [[medians[i, ours] for ours in (False, True)] for i in range(len(runs))]


def levels(size: int) -> list[tuple[str, nn.Conv3d, tuple[int, ...]]]:
    """(kind, layer, size of its input) from `size` px down."""
    found = []
    for px in reversed(ladder(size)):
        c, below = num_channels(px, 1.0), num_channels(px // 2, 1.0)
        factor, t = scale(px, "paper"), frames_at(px, "paper")
        found.append(("same", Conv3d(c, c, 3, padding=1), (t, px, px)))
        found.append(("same", Conv3d(c, below, 3, padding=1), (t, px, px)))
        found.append(("up", UpConv3d(below, c, factor), (t // factor[0], px // 2, px // 2)))
    return found


def main() -> None:
    given = arguments(__doc__)
    print("ms of torch, of ours, and the ratio\n")
    print("                                forward                      forward and backward")
    for dtype in (torch.float32, torch.bfloat16):
        for kind, layer, shape in levels(given.size):
            x = torch.randn(given.batch, layer.in_channels, *shape, dtype=dtype)
            x = x.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
            if not winograd_conv.supports(x, layer.out_channels, getattr(layer, "factor", (1, 1, 1))):
                continue
            with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
                medians = measure(layer, x, given.rounds)
            name = f"{str(dtype)[6:]:>8} {kind:>4} {layer.in_channels:>3} to {layer.out_channels:<3}"
            times = [f"{theirs:>8.1f} {ours:>8.1f} {theirs / ours:>5.2f}   " for theirs, ours in medians]
            print(f"{name} of {shape[-1]:>3} px", *times, flush=True)


if __name__ == "__main__":
    main()
