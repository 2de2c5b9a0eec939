"""Batches ahead of time are the batches."""

import threading
import time

import numpy as np
import pytest
import torch

from hrvgan.clipstore.batches import BatchStream, prefetch

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_batches_are_those_of_the_stream_in_order(shapes_clips, device, depth):
    stream = BatchStream(shapes_clips, batch_size=5, seed=1, num_frames=4, flip=True)
    steps = []
    for step, frames, labels in prefetch(stream, 3, 12, device, depth=depth):
        wanted, its_labels = stream.batch(step)
        assert (frames.dtype, frames.device.type, labels.dtype) == (torch.uint8, device, torch.int64)
        np.testing.assert_array_equal(frames.cpu().numpy(), wanted)
        np.testing.assert_array_equal(labels.cpu().numpy(), its_labels)
        steps.append(step)
    assert steps == list(range(3, 12))
    assert list(prefetch(stream, 3, 3, device)) == []


class Slow(BatchStream):
    def batch(self, step):
        time.sleep(0.05)
        return super().batch(step)


def test_reading_goes_on_while_a_step_is_taken(shapes_clips):
    """Ten reads and ten steps of 50 ms, one after the other a second: together little more than half of it."""
    start = time.perf_counter()
    for _ in prefetch(Slow(shapes_clips, batch_size=2), 0, 10, "cpu"):
        time.sleep(0.05)
    assert time.perf_counter() - start < 0.8


def test_who_stops_early_leaves_no_thread_and_errors_come_through(shapes_clips):
    before = threading.active_count()
    batches = prefetch(BatchStream(shapes_clips, batch_size=2), 0, 1000, "cpu")
    next(batches)
    batches.close()
    assert threading.active_count() == before

    class Broken(BatchStream):
        def batch(self, step):
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        next(prefetch(Broken(shapes_clips, batch_size=2), 0, 3, "cpu"))
