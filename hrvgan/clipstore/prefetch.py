"""Batches on their device before they are asked for."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from hrvgan.clipstore.clips import BatchStream


def prefetch(
    stream: BatchStream, start: int, stop: int, device: torch.device | str, *, depth: int = 2
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Steps `start` to `stop` with their clips uint8 (N, T, H, W, 3) and labels int64 (N,), on `device`.

    A thread reads `depth` batches ahead. For a GPU it copies them from pinned memory on a stream of its own, as
    bytes, a quarter of what floats would take, so that the copy too goes on while the last batch is trained on.
    """
    device = torch.device(device)
    copying = torch.cuda.Stream(device) if device.type == "cuda" else None
    with ThreadPoolExecutor(1) as reader:
        upcoming = deque()
        try:
            for step in range(start, stop):
                while len(upcoming) < min(depth, stop - step):
                    upcoming.append(reader.submit(_load, stream, step + len(upcoming), device, copying))
                frames, labels = upcoming.popleft().result()
                if copying:
                    torch.cuda.current_stream(device).wait_stream(copying)
                    for tensor in (frames, labels):  # Not used again before this stream is done.
                        tensor.record_stream(torch.cuda.current_stream(device))
                yield step, frames, labels
        finally:
            reader.shutdown(cancel_futures=True)


def _load(
    stream: BatchStream, step: int, device: torch.device, copying: torch.cuda.Stream | None
) -> tuple[Tensor, Tensor]:
    frames, labels = map(torch.from_numpy, stream.batch(step))
    if not copying:
        return frames.to(device), labels.to(device)
    with torch.cuda.stream(copying):
        return tuple(tensor.pin_memory().to(device, non_blocking=True) for tensor in (frames, labels))
