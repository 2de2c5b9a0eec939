"""Memory of large results: used again, never shared by two, and no more of it than was in use at once."""

import mmap
import sys
import threading

import pytest
import torch

from hrvgan.ops import allocator as memory
from hrvgan.ops.allocator import Pool, empty_clips

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch's own memory is used")
SHAPE = (2, 16, 4, 64, 64)  # 2 MiB in float32


@pytest.fixture(autouse=True)
def pool(monkeypatch):
    """An empty one."""
    monkeypatch.setattr(memory, "blocks", Pool())
    return memory.blocks


def test_a_tensor_is_laid_out_as_torch_does_it():
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        mine = empty_clips(SHAPE, dtype)
        its = torch.empty(SHAPE, dtype=dtype, memory_format=torch.channels_last_3d)
        assert (mine.shape, mine.stride(), mine.dtype) == (its.shape, its.stride(), its.dtype)
        assert mine.is_contiguous(memory_format=torch.channels_last_3d)
        mine.fill_(3)
        assert mine.sum() == 3 * mine.numel()


def test_what_is_freed_is_used_again():
    x = empty_clips(SHAPE, torch.float32)
    place = x.data_ptr()
    del x
    assert empty_clips(SHAPE, torch.float32).data_ptr() == place


def test_a_view_keeps_its_memory():
    x = empty_clips(SHAPE, torch.float32).fill_(7)
    part, place = x[1], x.data_ptr()
    del x
    other = empty_clips(SHAPE, torch.float32).fill_(1)
    assert other.data_ptr() != place
    assert (part == 7).all()


def test_no_more_is_held_than_was_in_use_at_once(pool):
    size, most = 2**21, 0
    for factors in ([1, 2, 3], [4], [1, 1, 1, 1], [5, 1], [6], [2, 2, 2]):
        living = [pool.take(factor * size) for factor in factors]
        most = max(most, sum(factors) * size)
        assert pool.held <= pool.most == most
        del living
    pool.collect()
    assert pool.used == 0
    assert pool.held == sum(size * len(blocks) for size, blocks in pool.idle.items())


def test_memory_that_is_refused_is_not_counted(pool):
    kept = pool.take(2**21)
    with pytest.raises((OSError, OverflowError)):
        pool.take(2**60)
    assert pool.held == pool.used == pool.most == len(kept)


def test_without_huge_pages_it_works(pool, monkeypatch):
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE")
    assert pool.take(2**21).size == 2**21


def test_what_is_not_in_use_can_be_given_back(pool):
    kept, freed = pool.take(2**21), pool.take(2**22)
    del freed
    pool.release()
    assert pool.held == pool.most == len(kept)


def test_small_results_are_left_to_torch(pool):
    empty_clips((1, 8, 2, 8, 8), torch.float32)
    assert pool.held == 0


def test_threads_get_memory_of_their_own():
    wrong = []

    def work(number):
        for _ in range(50):
            x = empty_clips(SHAPE, torch.float32).fill_(number)
            y = empty_clips(SHAPE, torch.float32).fill_(-number)
            if not ((x == number).all() and (y == -number).all()):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_results_of_kernels_may_be_changed_in_place_and_saved(tmp_path):
    x = empty_clips(SHAPE, torch.float32).normal_()
    torch.save(x, tmp_path / "x.pt")
    assert torch.equal(torch.load(tmp_path / "x.pt"), x)
    assert x.relu_().min() == 0
