"""Chains of element by element operations in one pass over memory each, by kernels of hrvgan/native.

    plan        what a kernel is compiled for, and what it is told
    pixel_norm  pixel norm, modulation and ReLU, and the gradient
    leaky_relu  LeakyReLU and average pooling, and the gradient
    calls       from tensors to the kernels and back

Numbers are read and written in the dtype of the tensors, and float32 in between. hrvgan/models/fused.py and
pooling.py make them part of autograd, and have the same chains as operations of torch's.
"""
