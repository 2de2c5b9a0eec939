"""What several rooms test on: a small set of shapes that came down the real road."""

import os
import signal

import pytest
import torch
from hypothesis import settings

from hrvgan.clipstore.clips import Clips
from hrvgan.datasets import shapes
from hrvgan.extraction.extract import extract
from hrvgan.extraction.videos import write_videos_csv
from tests import processes

# A shell's background job ignores SIGINT, and so would all that it starts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ[processes.MARK] = str(os.getpid())
# Else each `dvc` leaves a `dvc daemon analytics`, which takes most of a core for seconds.
os.environ["DVC_NO_ANALYTICS"] = "1"

# The same few examples each time; a machine that is busy is slow with any of them.
settings.register_profile("few", max_examples=25, deadline=None, derandomize=True, database=None)
settings.load_profile("few")

# Networks in tests are tiny: a second thread only waits for the first, for long where the machine is busy.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="module", autouse=True)
def _no_process_left():
    """After each file, and so beside the name of the file that left one."""
    yield
    processes.none_left()


@pytest.fixture(scope="session")
def shapes_raw(tmp_path_factory):
    """A raw folder: 48 videos of 8 classes in 6 groups, and their videos.csv."""
    folder = tmp_path_factory.mktemp("shapes-raw")
    write_videos_csv(folder / "videos.csv", shapes.fetch(folder, num_groups=6, videos_per_group=1))
    return folder


@pytest.fixture(scope="session")
def shapes_clips(shapes_raw, tmp_path_factory):
    """Its clips: 8 frames of 32 px, 64 train, 16 val, 16 test, every class in every split."""
    store = tmp_path_factory.mktemp("shapes") / "clips"
    extract(shapes_raw, store, size=32, num_frames=8, workers=1)
    return Clips(store)
