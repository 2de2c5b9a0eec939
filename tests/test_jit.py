"""When kernels run, and the cache of their compiled code: kept, checked, private, limited."""

import os
import subprocess
import sys
import time

import pytest
import torch

from hrvgan.ops.cpu import jit, winograd_conv
from tests.test_winograd import error, operands, reference

pytestmark = pytest.mark.skipif(not jit.lanes(), reason="the kernels are for x86 with AVX2 or AVX-512")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Kernels are compiled anew, and kept in an empty folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jit.function.cache_clear()
    yield tmp_path / "hrvgan" / "kernels"
    jit.function.cache_clear()


@pytest.mark.parametrize(("value", "expected"), [("torch", "False"), ("winograd", "True"), (None, "True")])
def test_the_user_may_choose(value, expected):
    environment = {name: v for name, v in os.environ.items() if name != "HRVGAN_KERNELS"}
    environment |= {"HRVGAN_KERNELS": value} if value else {}
    code = "from hrvgan.ops import cpu; print(cpu.enabled)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == expected


STEP = """
import sys
sys.modules["llvmlite"] = None  # An import of it raises ImportError.
import torch
from hrvgan.models import build_model
from hrvgan.nn.base import Batch
from hrvgan.ops import cpu
gan = build_model("hrvgan", num_classes=3, size=16, width=0.1)
batch = Batch(torch.rand(4, 3, 8, 16, 16), torch.arange(4) % 3, 0)
for phase in gan.phases():
    sum(phase.loss(batch).values()).backward()
    phase.optimizer.step()
print(cpu.enabled, cpu.available(batch.real), all(p.isfinite().all() for p in gan.parameters()))
"""


def test_without_llvmlite_a_step_trains():
    done = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True"]


def test_another_version_of_llvmlite_means_no_kernels():
    """Whose LLVM may not know the instructions that kernels name."""
    code = "import llvmlite; llvmlite.__version__ = '0.44.0'; from hrvgan.ops import conv3d, cpu; print(cpu.enabled)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_compiled_kernels_are_kept_and_a_damaged_one_is_made_anew(cache):
    x, weight, bias, _ = operands(16, 16, (4, 8, 8), (1, 1, 1), torch.float32)
    y = winograd_conv.convolve(x, weight, bias)
    files = {file: file.read_bytes() for file in cache.glob("*.o")}
    assert len(files) == 2  # the weights', and the convolution
    for file, content in files.items():
        file.write_bytes(content[:-100])  # cut off
        assert jit.read_cached(file.name) is None
    jit.function.cache_clear()
    assert torch.equal(winograd_conv.convolve(x, weight, bias), y)
    assert {file: file.read_bytes() for file in cache.glob("*.o")} == files
    jit.function.cache_clear()
    times = {file: file.stat().st_mtime_ns for file in files}
    assert torch.equal(winograd_conv.convolve(x, weight, bias), y)  # as they are
    assert {file: file.stat().st_mtime_ns for file in files} == times


def test_without_a_place_to_keep_them_kernels_work(cache):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file in place of the folder")
    x, weight, bias, _ = operands(16, 16, (4, 8, 8), (1, 1, 1), torch.float32)
    assert (
        error(winograd_conv.convolve(x, weight, bias), reference(*(v.double() for v in (x, weight, bias)), (1, 1, 1)))
        < 1e-5
    )


def test_files_that_others_may_write_to_are_not_run(cache, monkeypatch):
    jit.write_cached("a.o", b"code")
    assert jit.read_cached("a.o") == b"code"
    assert cache.stat().st_mode & 0o777 == 0o700
    for path in (cache / "a.o", cache):
        mode = path.stat().st_mode & 0o777
        for writable in (0o020, 0o002):
            path.chmod(mode | writable)
            assert jit.read_cached("a.o") is None
        path.chmod(mode)
        assert jit.read_cached("a.o") == b"code"
    cache.chmod(0o777)
    jit.write_cached("b.o", b"code")
    assert not (cache / "b.o").exists()
    cache.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)  # They belong to somebody else.
    assert jit.read_cached("a.o") is None


def test_the_oldest_files_are_evicted(cache, monkeypatch):
    monkeypatch.setattr(jit, "CACHE_BYTES", 3 * (32 + 1000))  # a digest and the code
    for age, name in enumerate(("d.o", "c.o", "b.o", "a.o")):
        jit.write_cached(name, b"x" * 1000)
        written = time.time_ns() - age * 10**9
        os.utime(cache / name, ns=(written, written))
    assert sorted(file.name for file in cache.glob("*.o")) == ["a.o", "c.o", "d.o"]
    jit.write_cached("e.o", b"x" * 1000)
    assert sorted(file.name for file in cache.glob("*.o")) == ["c.o", "d.o", "e.o"]
