"""Extraction on a real Dask cluster: a scheduler, two workers, one of which does not live to see the end."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError
from hrvgan.extraction.extract import extract
from hrvgan.parallel import ordered_map
from tests.test_extraction import SMALL, stored_bytes, write_raw

pytest.importorskip("distributed", reason="the extra `dask` is not installed")


@pytest.fixture
def cluster(tmp_path):
    """Address, and the processes of the scheduler and of two workers with one thread each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                   "DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": "False"}  # fmt: skip
    python = [sys.executable, "-W", "ignore", "-m"]
    port = address.rpartition(":")[2]
    scheduler = [*python, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port,
                 "--no-dashboard", "--no-show"]  # fmt: skip
    worker = [
        *python,
        "distributed.cli.dask_worker",
        address,
        "--nthreads",
        "1",
        "--no-nanny",
        "--no-dashboard",
    ]
    options = {
        "env": environment,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "cwd": tmp_path,
    }
    processes = [
        subprocess.Popen(scheduler, **options),
        *(subprocess.Popen(worker, **options) for _ in range(2)),
    ]
    yield address, processes
    for process in processes:
        process.kill()
        process.wait()


def test_the_cluster_makes_the_same_bytes_though_a_worker_is_killed(cluster, tmp_path):
    address, (_, *workers) = cluster
    raw = write_raw(tmp_path, {f"{number:03d}.avi": 8 for number in range(120)} | {"short.avi": 3})
    extract(raw, tmp_path / "here", **SMALL)
    call = f"extract({str(raw)!r}, {str(tmp_path / 'there')!r}, dask={address!r}, **{SMALL})"
    code = f"from hrvgan.extraction.extract import extract; {call}"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 100
    while len(list((tmp_path / ".there.parts").glob("*/*.json"))) < 15:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    workers[0].send_signal(signal.SIGKILL)
    cut_when_killed = len(list((tmp_path / ".there.parts").glob("*/*.json")))
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert cut_when_killed < 121
    assert workers[0].wait() == -signal.SIGKILL
    assert stored_bytes(tmp_path / "there") == stored_bytes(tmp_path / "here")
    names = Clips(tmp_path / "there").index["clip_id"].to_pylist()
    assert len(names) == len(set(names)) == 240
    assert re.search(r"121/121", said)  # the bar of the whole


def test_a_scheduler_that_dies_is_one_sentence_and_nothing_is_lost(cluster, tmp_path):
    """Not that the disk is full."""
    address, (scheduler, *_) = cluster
    raw = write_raw(tmp_path, {f"{number:03d}.avi": 8 for number in range(120)})

    def kill_in_mid_run():
        while len(list((tmp_path / ".clips.parts").glob("*/*.json"))) < 10:
            time.sleep(0.005)
        scheduler.kill()

    killer = threading.Thread(target=kill_in_mid_run, daemon=True)
    killer.start()
    with pytest.raises(InputError, match=r"tcp:.*: the Dask cluster is gone .*; start it and run this again"):
        extract(raw, tmp_path / "clips", dask=address, **SMALL)
    done = len(list((tmp_path / ".clips.parts").glob("*/*.json")))
    assert 10 <= done < 120


def test_no_scheduler_is_one_sentence():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(InputError, match=r"no Dask scheduler answers.*start `dask scheduler`"):
            list(ordered_map(abs, [1], dask=address, desc="test", unit="item"))
