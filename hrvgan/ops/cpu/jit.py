"""What this processor can do; compiling for it, and running on its cores."""

import ctypes
import functools
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import llvmlite.binding as llvm
import numpy as np
import torch

from hrvgan.ops.cpu import kernel_cache as compiled

# LLVM would load far ahead of use in the long rounds of a product, and run out of registers.
llvm.set_option("hrvgan", "-enable-misched=0")
llvm.initialize_native_target()
llvm.initialize_native_asmprinter()


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
def able(dtype: torch.dtype) -> bool:
    """Whether kernels run here on tensors of `dtype`, float32 or bfloat16."""
    has = llvm.get_host_cpu_features()
    return lanes() > 0 if dtype == torch.float32 else bool(lanes() == 16 and has.get("avx512bf16"))


@functools.cache
def has_amx() -> bool:
    """Whether torch multiplies matrices of bfloat16 several times as fast as vectors would."""
    return bool(llvm.get_host_cpu_features().get("amx-bf16"))


@functools.cache
def function(write: Callable[[NamedTuple], object], plan: NamedTuple) -> ctypes._CFuncPtr:
    """The kernel that `write` writes for `plan`, compiled for this processor (a third of a second, or found compiled
    already)."""
    cpu, features = llvm.get_host_cpu_name(), f"{llvm.get_host_cpu_features().flatten()},-prefer-256-bit"
    target = llvm.Target.from_triple(llvm.get_process_triple())
    machine = target.create_target_machine(cpu=cpu, features=features, opt=3)
    name = compiled.name(write, plan, cpu, features, llvm.llvm_version_info)
    code = compiled.read(name)
    if code is None:
        code = compile_module(str(write(plan)), machine)
        compiled.write(name, code)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    run = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(engine.get_function_address("run"))
    run.engine = engine  # It lives as long as its code does.
    return run


def compile_module(text: str, machine: llvm.TargetMachine) -> bytes:
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = llvm.get_process_triple(), str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = False  # It is written in vectors.
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return machine.emit_object(module)


def run(function: ctypes._CFuncPtr, fields: np.ndarray, threads: int) -> None:
    """Calls `function` with the same fields on so many threads, which share its items out among them."""
    pointer = fields.ctypes.data
    if threads == 1:
        function(pointer)
    elif team := openmp():
        team(function, pointer, threads, 0)
    else:
        list(workers().map(function, [pointer] * threads))


@functools.cache
def openmp() -> ctypes._CFuncPtr | None:
    """GOMP_parallel of the OpenMP that torch has loaded: the threads of its team wait for work on their cores, which
    threads of our own would have to share with them."""
    try:
        team = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).GOMP_parallel
    except (OSError, AttributeError):  # torch has another OpenMP here
        return None
    team.argtypes, team.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return team


@functools.cache
def workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(torch.get_num_threads(), "kernels")
