"""The peak memory of two training steps, in a process of its own: prints bytes beside those of the libraries.

python measured_memory.py MODEL '{"size": 64}' BATCH PRECISION
"""

import json
import sys

import torch

from hrvgan.models import build_model
from hrvgan.nn.base import Batch
from hrvgan.ops.allocator import keep_freed_memory


def status(key: str) -> int:
    """Bytes of this process, as the system counts them."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def main(name: str, net: str, batch_size: str, precision: str) -> None:
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.nn.functional.conv3d(torch.zeros(1, 1, 3, 3, 3), torch.zeros(1, 1, 3, 3, 3))  # Libraries load late.
    before = status("VmRSS")
    gan = build_model(name, **json.loads(net)).train()
    average = [parameter.detach().clone() for parameter in gan.G.parameters()]
    real = torch.rand(int(batch_size), 3, gan.num_frames, gan.size, gan.size) * 2 - 1
    phases = gan.phases()
    for step in range(2):  # optimizers make their states in the first, which also has the lazy penalties
        batch = Batch(real, gan.cycle_labels(len(real)), step)
        for phase in phases:
            gan.requires_grad_(False)
            phase.module.requires_grad_(True)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                terms = phase.loss(batch)
            sum(terms.values()).backward()
            phase.optimizer.step()
            phase.optimizer.zero_grad(set_to_none=True)
    del average
    print(status("VmHWM") - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
