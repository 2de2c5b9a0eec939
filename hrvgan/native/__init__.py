"""Kernels that LLVM compiles while the program runs, for the processor that it runs on. No compiler need be installed.

    emit       loops, loads and stores, as LLVM's IR
    program    what all kernels are made of: fields that they are told, items that threads share out
    machine    what this processor can do; compiling for it, and running on its cores
    compiled   kernels of earlier processes
    launching  from tensors to a kernel
    memory     of large results

What they compute is elsewhere: convolutions in hrvgan/winograd, chains of other operations in hrvgan/chains.
"""
