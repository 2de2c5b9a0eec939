"""CPU kernels, generated as LLVM IR and compiled at run time by llvmlite; no compiler needs to be installed.

jit, kernel_cache            compile for this processor; keep compiled code in the user's cache folder
llvm_ir, kernel_base         IR builder; how a kernel receives its arguments and divides its work among threads
launch, buffer_pool          call a kernel on tensors; memory for its results
winograd_*                   3x3x3 convolutions by Winograd's minimal filtering (Lavin & Gray 2016) in three dimensions
elementwise, pixel_norm_kernels, leaky_relu_kernels    fused elementwise operations, one pass over memory each
"""
