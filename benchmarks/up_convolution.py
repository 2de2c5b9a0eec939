"""UpConv3d against upsampling and then convolving, forward and backward, at the levels of the laptop's generator.

    python -m benchmarks.up_convolution

Prints medians of 5 in milliseconds and their ratio; both compute the same function (tests/test_models.py).
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from hrvgan.models.blocks import UpConv3d
from hrvgan.models.hrvgan import LADDER, num_channels, scale

WIDTH, BATCH, ROUNDS = 0.25, 16, 5


def milliseconds(function: Callable[[], torch.Tensor]) -> float:
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        function().sum().backward()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[1:])  # The first one warms up.


def main() -> None:
    frames = 4
    print(f"batch {BATCH}, width {WIDTH}, {torch.get_num_threads()} threads\n")
    print(f"{'level':>6} {'plain ms':>9} {'fused ms':>9} {'ratio':>6}")
    for px in LADDER[: LADDER.index(64) + 1]:
        factor = scale(px, "paper")
        layer = UpConv3d(num_channels(px // 2, WIDTH), num_channels(px, WIDTH), factor)
        layer.to(memory_format=torch.channels_last_3d)
        x = torch.randn(BATCH, layer.in_channels, frames, px // 2, px // 2)
        x = x.contiguous(memory_format=torch.channels_last_3d).requires_grad_()

        def plain(x=x, layer=layer, factor=factor) -> torch.Tensor:
            return F.conv3d(F.interpolate(x, scale_factor=factor), layer.weight, layer.bias, padding=1)

        slow, fast = milliseconds(plain), milliseconds(lambda x=x, layer=layer: layer(x))
        print(f"{px:>6} {slow:>9.1f} {fast:>9.1f} {slow / fast:>6.2f}")
        frames *= factor[0]


if __name__ == "__main__":
    main()
