"""Convolutions of 3x3x3 with fewer multiplications, by kernels that LLVM compiles while the program runs.

    schemes    what is added before and after the products, along one axis
    emit       loops, loads and stores, as LLVM's IR
    plan       what a kernel is compiled for, and what it is told
    kernel     what all kernels are made of
    kernels    a convolution, and its gradient by the weights
    taps       from weights to what these multiply by, and back
    machine    what this processor can do; compiling for it, and running on its cores
    compiled   kernels of earlier processes
    products   from tensors to the kernels and back

Winograd's minimal filtering (Lavin & Gray 2016) in three dimensions: along each axis multiplications, which were nine
tenths of a training step on a CPU, are traded for additions that stay in the cache.
"""
