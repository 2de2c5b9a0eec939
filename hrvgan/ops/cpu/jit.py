"""From a kernel's generator to a call: detect the processor's features, compile, cache the object code, launch."""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import llvmlite
import numpy as np
import torch
from torch import Tensor

from hrvgan.files import atomic_path, user_cache
from hrvgan.ops.allocator import empty

if not llvmlite.__version__.startswith("0.50."):  # of extra `cpu`: kernels name instructions of its LLVM
    raise ImportError(f"kernels need llvmlite 0.50, not {llvmlite.__version__}")

import llvmlite.binding as llvm

# Global: holds for all that this process compiles with llvmlite, where it costs others a little speed. LLVM has no such
# switch for one function or module. With its scheduler, the loads of a long unrolled product move so far ahead of their
# use that registers spill (a convolution takes 36 ms, not 26; docs/results/speed.md).
llvm.set_option("hrvgan", "-enable-misched=0")
llvm.initialize_native_target()
llvm.initialize_native_asmprinter()

CACHE_BYTES = 64 * 2**20  # most that the cache folder holds; the default run needs about 1 MB


@functools.cache
def lanes() -> int:
    """float32 numbers in a vector: 16 with AVX-512, 8 with AVX2, 0 where the kernels do not run."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return 0
    has = llvm.get_host_cpu_features()
    if has.get("avx512f") and has.get("avx512vl"):
        return 16
    return 8 if has.get("avx2") and has.get("fma") else 0


@functools.cache
def supports(dtype: torch.dtype) -> bool:
    """True if kernels run here on tensors of `dtype`, which may be float32 or bfloat16."""
    if dtype == torch.bfloat16:
        return bool(lanes() == 16 and llvm.get_host_cpu_features().get("avx512bf16"))
    return dtype == torch.float32 and lanes() > 0


@functools.cache
def has_amx() -> bool:
    """True if torch multiplies bfloat16 matrices several times as fast as vector instructions could."""
    return bool(llvm.get_host_cpu_features().get("amx-bf16"))


class Layout(NamedTuple):
    """Names of the 64-bit words of a kernel's argument array, in order. Threads increment the first two: the next item
    of the work, and the next thread's number."""

    pointers: tuple[str, ...]
    numbers: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return ("item", "thread", *self.pointers, *self.numbers)


def launch(
    generate: Callable, plan: NamedTuple, tensors: dict[str, Tensor], items: int, scratch_size: int = 0, **counts: int
) -> None:  # fmt: skip
    """Runs the kernel that `generate(plan, layout)` generates, on as many threads as torch has.

    It finds `tensors` and `counts` under their names (see llvm_ir.Program), and `scratch_size` words of 4 bytes for
    each thread under "scratch"; a name that it does not find is a KeyError when it is generated.
    """
    threads = min(torch.get_num_threads(), items)
    device = next(iter(tensors.values())).device
    scratch = empty((threads * scratch_size,), device=device)
    if device.type == "meta":
        return
    pointers = {"scratch": scratch, **tensors}
    numbers = {"items": items, "scratch_size": scratch_size, **counts}
    kernel = function(generate, plan, Layout(tuple(pointers), tuple(numbers)))
    words = [0, 0, *(tensor.data_ptr() for tensor in pointers.values()), *numbers.values()]
    run(kernel, np.array(words, dtype=np.int64), threads)


def run(kernel: ctypes._CFuncPtr, arguments: np.ndarray, threads: int) -> None:
    """Calls `kernel` with the same arguments on so many threads, which share its items out among them."""
    pointer = arguments.ctypes.data
    if threads == 1:
        kernel(pointer)
    elif parallel := openmp():
        parallel(kernel, pointer, threads, 0)
    else:
        list(workers().map(kernel, [pointer] * threads))


@functools.cache
def openmp() -> ctypes._CFuncPtr | None:
    """GOMP_parallel of torch's OpenMP, the entry point of `#pragma omp parallel`; None where that is another OpenMP.

    It shares torch's team of threads with torch: these wait for work on their cores (spinning), which threads of our
    own would have to share with them. It changes no setting of that OpenMP.
    """
    try:
        parallel = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).GOMP_parallel
    except (OSError, AttributeError):
        return None
    parallel.argtypes, parallel.restype = [ctypes.c_void_p] * 2 + [ctypes.c_uint] * 2, None
    return parallel


@functools.cache
def workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(torch.get_num_threads(), "kernels")


@functools.cache
def function(generate: Callable, plan: NamedTuple, layout: Layout) -> ctypes._CFuncPtr:
    """The compiled kernel (a third of a second, or from the cache)."""
    cpu, features = llvm.get_host_cpu_name(), f"{llvm.get_host_cpu_features().flatten()},-prefer-256-bit"
    target = llvm.Target.from_triple(llvm.get_process_triple())
    machine = target.create_target_machine(cpu=cpu, features=features, opt=3)
    name = cache_key(generate, plan, layout, cpu, features, llvm.llvm_version_info)
    code = read_cached(name)
    if code is None:
        code = compile_module(str(generate(plan, layout)), machine)
        write_cached(name, code)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(engine.get_function_address("run"))
    kernel.engine = engine  # It lives as long as its code does.
    return kernel


def compile_module(text: str, machine: llvm.TargetMachine) -> bytes:
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = llvm.get_process_triple(), str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = False  # It is written in vectors.
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return machine.emit_object(module)


def cache_folder() -> Path:
    return user_cache() / "kernels"


def cache_key(generate: Callable, *arguments: object) -> str:
    """File name: hash of the generator function, its arguments and the source of this package."""
    text = repr((generate.__module__, generate.__qualname__, arguments, source_hash()))
    return f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.o"


@functools.cache
def source_hash() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()


def read_cached(name: str) -> bytes | None:
    """The object code, if it is there, whole and safe: it is going to be executed."""
    try:
        with open(cache_folder() / name, "rb") as file:
            private = is_private(os.stat(cache_folder())) and is_private(os.fstat(file.fileno()))
            content = file.read() if private else b""
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return None
    digest, code = content[:32], content[32:]
    return code if hashlib.sha256(code).digest() == digest else None


def is_private(status: os.stat_result) -> bool:
    """True for a file or folder that belongs to this user and that nobody else may write to."""
    if not hasattr(os, "geteuid"):  # Windows: the user's folders are private by their access lists.
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def write_cached(name: str, code: bytes) -> None:
    """Keeps the code for later processes. Where that fails, they compile again."""
    with contextlib.suppress(OSError, RuntimeError):
        cache_folder().parent.mkdir(parents=True, exist_ok=True)
        cache_folder().mkdir(mode=0o700, exist_ok=True)
        if is_private(os.stat(cache_folder())):
            with atomic_path(cache_folder() / name) as file:
                file.write_bytes(hashlib.sha256(code).digest() + code)
            evict()


def evict() -> None:
    """Deletes the oldest entries, by the time they were written, until the others take no more than CACHE_BYTES."""
    sizes = {file: file.stat() for file in cache_folder().glob("*.o")}
    total = 0
    for file, status in sorted(sizes.items(), key=lambda entry: entry[1].st_mtime_ns, reverse=True):
        total += status.st_size
        if total > CACHE_BYTES:
            file.unlink(missing_ok=True)
