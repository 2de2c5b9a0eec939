"""Means of logged values between two reports (reproducible), and timings (not)."""

import sys
import time

import torch
from torch import Tensor

from hrvgan.training.distributed import average_


class Meter:
    """Running means for one row of the history. Sums stay on the device: reading them each step would synchronise."""

    def __init__(self, device: torch.device):
        self.device = device
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.clips, self.wait, self.since = 0, 0.0, time.perf_counter()

    def add(self, values: dict[str, Tensor]) -> None:
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0) + value.float()
            self.counts[key] = self.counts.get(key, 0) + 1

    def waited(self, seconds: float, clips: int) -> None:
        """Adds the seconds that the loop waited for a batch of `clips` clips (of all processes together)."""
        self.wait += seconds
        self.clips += clips

    def means(self) -> dict[str, float]:
        """Means of all values added since `clear`, over all processes, whose sums are equal from then on."""
        sums = torch.stack(list(self.sums.values()))
        average_([sums])
        self.sums = dict(zip(self.sums, sums, strict=True))
        return {key: value / self.counts[key] for key, value in zip(self.sums, sums.tolist(), strict=True)}

    def clear(self) -> None:
        self.sums, self.counts = {}, {}

    def timings(self) -> dict[str, float]:
        """Clips a second and the share of time spent waiting for data, since the last call; peak memory of this process
        in GB, since its start."""
        elapsed = time.perf_counter() - self.since
        timings = {
            "speed/clips_per_s": self.clips / elapsed,
            "speed/data_wait": self.wait / elapsed,
            "speed/peak_memory_gb": peak_memory(self.device) / 1e9,
        }
        self.clips, self.wait, self.since = 0, 0.0, time.perf_counter()
        return timings


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: of tensors on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
