"""Convolutions of 3x3x3 with fewer multiplications, by kernels of hrvgan/native.

    schemes    what is added before and after the products, along one axis
    plan       what a kernel is compiled for, and what it is told
    kernel     what these kernels are made of
    kernels    a convolution, and its gradient by the weights
    taps       from weights to what these multiply by, and back
    products   from tensors to the kernels and back

Winograd's minimal filtering (Lavin & Gray 2016) in three dimensions: along each axis multiplications, which were nine
tenths of a training step on a CPU, are traded for additions that stay in the cache.
"""
