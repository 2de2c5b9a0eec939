"""Operations of the networks: a reference in plain torch each, and fast kernels for a CPU (`cpu/`).

Here is what gradient penalties tell the convolutions, without kernels: losses of models that use none depend on it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_penalties, _lock = 0, Lock()  # number of penalties under way


@contextmanager
def gradients_by_inputs_alone() -> Iterator[None]:
    """Within it, backward passes through `Conv3d` skip the gradients w.r.t. weights and biases: in all threads, so that
    a process can train one model at a time."""
    global _penalties  # Autograd does not tell a Function what the caller asked for, and has its own threads.
    with _lock:
        _penalties += 1
    try:
        yield
    finally:
        with _lock:
            _penalties -= 1


def penalty_under_way() -> bool:
    return _penalties > 0
