"""What a training took: it changes with the machine, so it stands beside the released model, not in it."""

from pathlib import Path

import torch

from hrvgan.files import write_json
from hrvgan.training.distributed import world_size
from pipeline import tracking


def record_effort(run: str, state: Path, batch_size: int, device: torch.device) -> None:
    """Writes metrics/<run>.training.json from the last state of the training; MLflow gets its numbers."""
    last = torch.load(state, map_location="cpu", weights_only=True, mmap=True)
    clips, seconds = last["step"] * batch_size, last["seconds"]
    numbers = {
        "steps": last["step"],
        "clips_seen": clips,
        "seconds": seconds,  # of all processes that took turns at it
        "clips_per_s": clips / seconds,
    }
    write_json(Path("metrics") / f"{run}.training.json", {**numbers, "machine": machine(device)})
    tracking.record(run, "train")


def machine(device: torch.device) -> str:
    """The GPU's name and how many of them, or the processor's and how many threads work."""
    if device.type == "cuda":
        return f"{world_size()} x {torch.cuda.get_device_name(device)}"
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads() * world_size()
    return f"{names[0] if names else device.type}, {threads} thread{'' if threads == 1 else 's'}"
