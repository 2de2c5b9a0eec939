"""CPU kernels, generated as LLVM IR and compiled at run time by llvmlite (extra `cpu`); no compiler is needed.

jit                                                 compile for this processor, cache the code, call it on tensors
llvm_ir                                             IR builder; kernel arguments and work distribution over threads
elementwise                                         fused elementwise operations, one pass over memory each
winograd_schemes, winograd_tiles, winograd_conv     3x3x3 convolutions by Winograd's minimal filtering
                                                    (Lavin & Gray 2016) in three dimensions
"""

import os

import torch
from torch import Tensor

from hrvgan.ops.allocator import META_AS_CPU

try:
    from hrvgan.ops.cpu import jit
except ImportError:  # llvmlite is missing or has another version
    jit = None

enabled = jit is not None and os.environ.get("HRVGAN_KERNELS") != "torch"


def available(x: Tensor) -> bool:
    """The switch between kernels and plain torch: True where kernels run on tensors with x's device and dtype.

    torch.compile traces plain torch, which it can fuse.
    """
    if not enabled or torch.compiler.is_compiling():
        return False
    on_cpu = x.device.type == "cpu" or (x.is_meta and META_AS_CPU.get())
    return on_cpu and jit.supports(x.dtype)
