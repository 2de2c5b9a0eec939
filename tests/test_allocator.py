"""Freed memory stays with the process, unless its user wants otherwise."""

import os
import sys

import pytest

from tests import processes

CODE = """
import resource
import torch
from hrvgan.ops.allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    x = torch.ones(2**24)  # 64 MB
    tensors = [x]
    for _ in range(5):
        x = x + 1
        tensors.append(x)
    for y in reversed(tensors):
        x = x * y

kept = keep_freed_memory()
for _ in range(5):
    before = faults()
    step()
print(kept, (faults() - before) * 4096 / 2**26)
"""


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone gives memory back to the system at once")
@pytest.mark.parametrize(
    ("user", "kept", "least", "most"), [({}, "True", 0, 2), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, "False", 11, 14)]
)
def test_in_the_long_run_tensors_have_no_new_pages(user, kept, least, most):
    """Page faults of the fifth step, in units of those of one of its twelve tensors."""
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "LD_PRELOAD"))}
    said = processes.run([sys.executable, "-c", CODE], env=quiet | user).stdout.split()
    assert said[0] == kept
    assert least <= float(said[1]) < most
