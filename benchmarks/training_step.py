"""One training iteration of HRVGAN, as it is and as one would first write it (benchmarks/plain.py).

    python -m benchmarks.training_step [--sizes 32 64 128 256] [--rounds 5] [--rivals]

An iteration is a step of D with both penalties, a step of G and the average of G. Every number is the median of
interleaved rounds; each row has a process of its own, in which its peak of memory is read. Ours keep freed memory, as
our programs do (hrvgan/ops/allocator.py), and `plain` leaves that as it is. First come the ceilings of the machine:
products of matrices, and copying. With --rivals, one iteration of the rivals comes last.
"""

import argparse
import copy
import time
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.plain import PlainDiscriminator, PlainGenerator
from benchmarks.processes import Process, interleaved
from hrvgan.models import MODELS, build_model
from hrvgan.nn.base import Batch
from hrvgan.training.ema import update_average

BATCH = {32: 16, 64: 4, 128: 2, 256: 2}


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def ceilings() -> bool:
    """Prints what this machine can do at best; returns whether bfloat16 is worth a row."""
    speed = {dtype: product_speed(dtype) for dtype in (torch.float32, torch.bfloat16)}
    for dtype, flops in speed.items():
        print(f"matrix product in {str(dtype).removeprefix('torch.')}: {flops / 1e9:.0f} GFLOP/s")
    source, target = torch.randn(2**26), torch.empty(2**26)
    fastest = min(seconds(lambda: target.copy_(source)) for _ in range(5))
    print(f"copy: {2 * 4 * 2**26 / fastest / 1e9:.1f} GB/s, {torch.get_num_threads()} threads\n")
    return speed[torch.bfloat16] > speed[torch.float32]


def product_speed(dtype: torch.dtype) -> float:
    """FLOP/s of the largest product of matrices that takes less than a tenth of a second."""
    for n in (256, 512, 1024, 2048):
        a = torch.randn(n, n).to(dtype)
        fastest = min(seconds(lambda a=a: a @ a) for _ in range(3))
        if fastest > 0.1:
            break
    return 2 * n**3 / fastest


class Iteration:
    """Call it to train for one step: the first one, on which HRVGAN's lazy penalties fall, or `lazy`, one without.
    `plain`: with the plain networks, and optimisers that loop in Python."""

    def __init__(self, size: int, plain: bool, bfloat16: bool = False, name: str = "hrvgan", lazy: bool = False, **net):
        torch.manual_seed(0)
        self.gan = build_model(name, num_classes=10, size=size, **net)
        if plain:
            networks = (PlainGenerator(10, size, "paper", 1.0), PlainDiscriminator(10, size, "paper", 1.0))
            self.gan.G, self.gan.D = networks
        self.phases = self.gan.phases()
        for phase in self.phases:
            phase.optimizer.defaults["foreach"] = not plain
            for group in phase.optimizer.param_groups:
                group["foreach"] = not plain
        self.average = copy.deepcopy(self.gan.G).requires_grad_(False)
        self.autocast = torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)
        shape = (BATCH[size], 3, self.gan.num_frames, size, size)
        self.batch = Batch(
            torch.rand(shape) * 2 - 1, torch.arange(BATCH[size]) % max(self.gan.num_classes, 1), int(lazy)
        )

    def __call__(self) -> None:
        for phase in self.phases:
            self.gan.requires_grad_(False)
            phase.module.requires_grad_(True)
            with self.autocast:
                terms = phase.loss(self.batch)
            sum(terms.values()).backward()
            phase.optimizer.step()
            phase.optimizer.zero_grad(set_to_none=True)
            phase.after(0)
        update_average(self.average, self.gan.G, 0.999)


class Flops(TorchDispatchMode):
    """Counts as torch's FlopCounterMode does, which cannot follow a penalty's gradient of a gradient."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def measure(size: int, rounds: int, precisions: dict[str, bool]) -> None:
    with Flops() as counted:
        Iteration(size, plain=True)()
    steps = {"plain": Process(Iteration, size, True, keeps=False)}
    steps |= {name: Process(Iteration, size, False, half, keeps=True) for name, half in precisions.items()}
    medians = interleaved(steps, rounds)
    memory = {name: step.end() for name, step in steps.items()}
    for name, median in medians.items():
        print(
            f"{size:>4} {name:>9} {BATCH[size]:>6} {BATCH[size] / median:>8.2f} {medians['plain'] / median:>9.2f} "
            f"{memory[name]:>9.2f} {memory[name] / memory['plain']:>7.2f} "
            f"{counted.total / median / 1e9:>9.0f}",
            flush=True,
        )


def measure_rivals(rounds: int, precisions: dict[str, bool], size: int = 64) -> None:
    """All models at 16 frames of `size` px, each with the losses of its own preset; the rivals in float32. HRVGAN's
    step is the mean of those with penalties and without, in the shares of its preset."""
    kinds = {(name, "float32", False): (False, name) for name in MODELS if name != "hrvgan"}
    kinds |= {
        ("hrvgan", precision, lazy): (bfloat16, "hrvgan", lazy)
        for precision, bfloat16 in precisions.items()
        for lazy in (False, True)
    }
    steps = {kind: Process(Iteration, size, False, *about, keeps=True) for kind, about in kinds.items()}
    medians = interleaved(steps, rounds)
    for step in steps.values():
        step.end()
    every = build_model("hrvgan", num_classes=10, size=size).r1_every
    for name, precision, lazy in steps:
        took = medians[name, precision, lazy]
        if name == "hrvgan" and not lazy:
            took = (took + (every - 1) * medians[name, precision, True]) / every
        if not lazy:
            against = medians["mocogan", "float32", False] / took
            row = f"{size:>4} {name:>8} {precision:>9} {BATCH[size]:>6} {BATCH[size] / took:>8.2f} {against:>9.2f}"
            print(row, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", choices=list(BATCH), default=[32, 64, 128, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rivals", action="store_true")
    arguments = parser.parse_args()
    fast_half = ceilings()
    precisions = {"float32": False} | ({"bfloat16": True} if fast_half else {})
    if not fast_half:
        print("bfloat16 is no faster than float32 here, and left out\n")
    print("size           batch  clips/s   x plain  peak GiB x plain  GFLOP/s*")
    for size in arguments.sizes:
        measure(size, arguments.rounds, precisions)
    print("\n* of the operations that the plain network needs")
    if arguments.rivals:
        print("\nsize                     batch  clips/s x mocogan")
        measure_rivals(arguments.rounds, precisions)


if __name__ == "__main__":
    main()
