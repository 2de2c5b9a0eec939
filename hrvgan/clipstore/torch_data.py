"""A clip store for torch's DataLoader, for training programs that are not ours."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from hrvgan.clipstore.batches import BatchStream
from hrvgan.clipstore.clips import Clips


class ClipDataset(Dataset):
    """A store, or one split of it, by number: clip, uint8 (T, H, W, 3), and label. `clips` has the rest."""

    def __init__(self, folder: str | Path, split: str = ""):
        clips = Clips(folder)
        self.clips = clips.split(split) if split else clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self.clips[index].copy()), int(self.clips.labels[index])


class ClipBatches(IterableDataset):
    """Batches `start` to `stop` of a stream: clips, uint8 (N, T, H, W, 3), and labels, int64 (N,). For a DataLoader
    with `batch_size=None`, whose workers share the steps; the order is that of the stream, whatever their number."""

    def __init__(self, stream: BatchStream, start: int, stop: int):
        self.stream, self.start, self.stop = stream, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()
        first, every = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in range(self.start + first, self.stop, every):
            clips, labels = self.stream.batch(step)
            yield torch.from_numpy(clips), torch.from_numpy(labels)
