"""Extraction on a real Dask cluster: a scheduler, two workers, one of which does not live to see the end."""

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence

import pytest

from hrvgan import parallel
from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError
from hrvgan.extraction.extract import extract
from hrvgan.extraction.videos import read_videos_csv, write_videos_csv
from hrvgan.parallel import ordered_map
from tests import processes
from tests.test_extraction import SMALL, stored_bytes, write_raw
from tests.test_incremental_write import parts

pytest.importorskip("distributed", reason="the extra `dask` is not installed")


@pytest.fixture
def cluster(tmp_path):
    """Address, and the processes of the scheduler and of two workers with one thread each, one of them with a nanny."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                   "DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": "False"}  # fmt: skip
    python = [sys.executable, "-W", "ignore", "-m"]
    port = address.rpartition(":")[2]
    scheduler = [*python, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port,
                 "--no-dashboard", "--no-show"]  # fmt: skip
    worker = [*python, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(processes.start(command, env=environment, cwd=tmp_path))
            for command in (scheduler, [*worker, "--no-nanny"], [*worker, "--nanny"])
        ]
        yield address, started


def nap(seconds):
    """Sleep; with a negative number, die."""
    if seconds < 0:
        os._exit(7)
    time.sleep(seconds)
    return f"{seconds} s"


def two_seconds(item):
    return 2


def cause_of(item, cause):
    return cause


@pytest.mark.faults
def test_time_limits_hold_and_items_come_a_window_at_a_time(cluster, tmp_path):
    """On workers with and without nanny: what hangs or dies loses itself alone."""
    address, _ = cluster
    options = {"dask": address, "desc": "test", "unit": "item"}
    naps = [0.1, 600, 600, -1, -1, 0.2]
    late, died = "took too long", "its process died (exit code 7)"
    results = ordered_map(nap, naps, limit=two_seconds, lost=cause_of, **options)
    assert list(results) == ["0.1 s", late, late, died, died, "0.2 s"]

    class Items(Sequence):
        most = 0

        def __len__(self):
            return 100_000

        def __getitem__(self, number):
            self.most = max(self.most, number)
            return number

    items = Items()
    results = ordered_map(abs, items, **options)
    assert [next(results) for _ in range(50)] == list(range(50))
    assert items.most < 50 + 16 * 17  # eight batches of sixteen for each thread, and the one under way
    results.close()
    raw = write_raw(tmp_path, {"a/1.avi": 4, "b/2.avi": 4})
    local = (raw / "videos.csv").read_bytes()
    write_videos_csv(raw / "videos.csv", read_videos_csv(raw / "videos.csv"), dask=address)
    assert (raw / "videos.csv").read_bytes() == local


@processes.in_full
@pytest.mark.faults
def test_what_kills_its_worker_is_lost_alone_and_not_its_batch(cluster):
    """By default Dask gives up what has killed four workers: first the batch, then the one item of it."""
    naps = [0.01] * 70 + [-1] + [0.01] * 70
    results = list(ordered_map(nap, naps, lost=cause_of, dask=cluster[0], desc="test", unit="item"))
    assert results.pop(70) == "its Dask worker died again and again"
    assert results == ["0.01 s"] * 140


@pytest.mark.faults
def test_the_cluster_makes_the_same_bytes_though_a_worker_is_killed(cluster, tmp_path):
    address, (_, *workers) = cluster
    raw = write_raw(tmp_path, {f"{number:03d}.avi": 8 for number in range(120)} | {"short.avi": 3})
    extract(raw, tmp_path / "here", **SMALL)
    call = f"extract({str(raw)!r}, {str(tmp_path / 'there')!r}, dask={address!r}, **{SMALL})"
    code = f"from hrvgan.extraction.extract import extract; {call}"
    with processes.start([sys.executable, "-W", "ignore", "-c", code]) as process:
        processes.wait_for(lambda: len(parts(tmp_path / "there")) >= 15, "15 videos", process=process)
        workers[0].kill()
        cut_when_killed = len(parts(tmp_path / "there"))
        assert process.finish() == 0, process
        said = process.output("stderr")
    assert cut_when_killed < 121
    assert workers[0].finish() == -signal.SIGKILL
    assert stored_bytes(tmp_path / "there") == stored_bytes(tmp_path / "here")
    names = Clips(tmp_path / "there").index["clip_id"].to_pylist()
    assert len(names) == len(set(names)) == 240
    assert re.search(r"121/121", said)  # the bar of the whole


@pytest.mark.faults
def test_a_scheduler_that_dies_is_one_sentence_and_nothing_is_lost(cluster, tmp_path):
    """Not that the disk is full."""
    address, (scheduler, *_) = cluster
    raw = write_raw(tmp_path, {f"{number:03d}.avi": 8 for number in range(120)})

    def kill_in_mid_run():
        processes.wait_for(lambda: len(parts(tmp_path / "clips")) >= 10, "10 videos")
        scheduler.kill()

    killer = threading.Thread(target=kill_in_mid_run, daemon=True)
    killer.start()
    with pytest.raises(InputError, match=r"tcp:.*: the Dask cluster is gone .*; start it and run this again"):
        extract(raw, tmp_path / "clips", dask=address, **SMALL)
    assert 10 <= len(parts(tmp_path / "clips")) < 120


def test_no_scheduler_is_one_sentence(monkeypatch):
    monkeypatch.setattr(parallel, "ANSWER_TIMEOUT", 0.5)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(InputError, match=r"no Dask scheduler answers.*start `dask scheduler`"):
            list(ordered_map(abs, [1], dask=address, desc="test", unit="item"))
