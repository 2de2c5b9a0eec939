"""A 3-D convolution for networks whose gradient is penalised, so that it is differentiated twice.

torch's own gradient of a gradient is exact, but takes the one by the weights for a convolution whose kernel is a whole
clip; here it is a gradient by the weights like any other (on two CPU cores ten times as fast at 64 px), and the first
gradient, of which a penalty needs that by the clips alone, leaves out the one by the weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from hrvgan.ops.cpu import winograd_conv as products

_penalties, _lock = 0, Lock()  # that are under way


@contextmanager
def gradients_by_inputs_alone() -> Iterator[None]:
    """While it lasts, backward passes through `Conv3d` make no gradients by weights and biases: those of all threads,
    so train one model a process."""
    global _penalties  # Autograd tells a Function nothing of what it was asked for, and has threads of its own.
    with _lock:
        _penalties += 1
    try:
        yield
    finally:
        with _lock:
            _penalties -= 1


class Conv3d(nn.Conv3d):
    """nn.Conv3d with stride 1: the same function, parameters and gradients."""

    def forward(self, x: Tensor) -> Tensor:
        return Convolution.apply(autocast(x), self.weight, self.bias, self.padding)


class FromRGB(Conv3d):
    """1x1x1, from clips (N, 3, T, H, W) to features: in float32 also where autocast has the others in bfloat16.

    bfloat16 would round colours by up to half a level of 255, all pixels of a plain background alike. What D learns of
    colours is what real clips ask of this layer less what generated ones do: such roundings could outweigh it.
    """

    def __init__(self, c_out: int):
        super().__init__(3, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x):
            features = Convolution.apply(x, self.weight, self.bias, self.padding)
        return autocast(features)


def without_autocast(x: Tensor) -> torch.autocast:
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)


def autocast(x: Tensor) -> Tensor:
    """x in the dtype that autocast has convolutions computed in."""
    if x.device.type == "meta" or not torch.is_autocast_enabled(x.device.type):
        return x
    return x.to(torch.get_autocast_dtype(x.device.type))


class Convolution(torch.autograd.Function):
    """Computed in the dtype of x; weight and bias, and the gradients by them, may have a wider one."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, ...]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return convolve(x, weight, bias, padding)

    @staticmethod
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor | None, ...]:
        wanted = wanted_gradients(ctx)
        if ctx.saved_tensors[0].is_contiguous(memory_format=torch.channels_last_3d):
            g = g.contiguous(memory_format=torch.channels_last_3d)
        return *Gradients.apply(g, *ctx.saved_tensors, ctx.padding, wanted), None


def wanted_gradients(ctx: FunctionCtx) -> tuple[bool, ...]:
    """Of those by x, weight and bias."""
    x_too, *weights_too = ctx.needs_input_grad[:3]
    return x_too, *(too and not _penalties for too in weights_too)


class Gradients(torch.autograd.Function):
    """g and what the convolution saw -> the gradients by x, weight and bias, where `wanted`."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, g: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, ...], wanted: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        ctx.save_for_backward(g, x, weight)
        ctx.padding = padding
        ctx.set_materialize_grads(False)
        return gradients(g, x, weight, padding, wanted)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, by_x: Tensor | None, by_weight: Tensor | None, by_bias: Tensor | None
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        needed = ctx.needs_input_grad[:3]
        return (
            *gradients_again((by_x, by_weight, by_bias), *ctx.saved_tensors, ctx.padding, needed),
            None,
            None,
        )


def gradients_again(
    by: tuple[Tensor | None, ...], g: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, ...],
    wanted: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """The gradients by g, x and weight, where `wanted`, of what depends on `gradients`, given those `by` these three:
    <by_x, x'> + <by_weight, w'> + <by_bias, b'>. x' is linear in g and weight, w' in g and x, b' in g alone."""
    by_x, by_weight, by_bias = by
    g_too, x_too, weight_too = wanted
    of_g = of_x = of_weight = None
    if by_x is not None:
        if g_too:
            of_g = convolve(by_x, weight, None, padding)
        if weight_too:
            of_weight = gradients(g, by_x, weight, padding, (False, True, False))[1]
    if by_weight is not None:
        if g_too:
            of_g = plus(of_g, convolve(x, by_weight, None, padding))
        if x_too:
            of_x = gradients(g, x, by_weight, padding, (True, False, False))[0]
    if by_bias is not None and g_too:
        of_g = plus(of_g, by_bias[:, None, None, None].expand_as(g))
    return of_g, of_x, of_weight


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, ...]) -> Tensor:
    """F.conv3d with stride 1. On a CPU by our own kernels where they are faster, else it asks oneDNN by name: for one
    small clip, and on one thread for a kernel of 1x1x1, torch would choose a convolution of its own that takes five
    times as long and leaves channels-last."""
    if ours(x, weight, padding):
        return products.convolve(x, weight, bias)
    weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
    if x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        return torch.ops.aten.mkldnn_convolution(x, weight, bias, padding, [1, 1, 1], [1, 1, 1], 1)
    with without_autocast(x):  # It is in the dtype of x already.
        return F.conv3d(x, weight, bias, padding=padding)


def ours(x: Tensor, weight: Tensor, padding: tuple[int, ...]) -> bool:
    return weight.shape[2:] == (3, 3, 3) and padding == (1, 1, 1) and products.takes(x, len(weight))


def gradients(
    g: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, ...], wanted: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """Gradients by x, weight and bias of a convolution with stride 1, given that by its output."""
    if ours(x, weight, padding):
        return products.gradients(g, x, weight, (1, 1, 1), wanted)
    if wanted == (True, False, False):  # It is one too: of g, with the kernel turned round.
        around = tuple(size - 1 - pad for size, pad in zip(weight.shape[2:], padding, strict=True))
        return convolve(g, weight.transpose(0, 1).flip(2, 3, 4), None, around), None, None
    by_x, *by_parameters = torch.ops.aten.convolution_backward(
        g, x, weight.to(x.dtype), [len(weight)], [1, 1, 1], padding, [1, 1, 1], False, [0, 0, 0], 1, wanted
    )
    return by_x, *(None if v is None else v.to(weight.dtype) for v in by_parameters)


def plus(a: Tensor | None, b: Tensor) -> Tensor:
    return b if a is None else a + b


class UpConv3d(nn.Conv3d):
    """Nearest upsampling by `factor`, then a 3x3x3 convolution: exactly the same function, with no upsampled tensor.

    By our own kernels where they are faster, else as one transposed convolution: along an axis that doubles, the kernel
    summed over two shifts, with stride 2. That is half the work or less (twice as fast at 32 px).
    """

    def __init__(self, c_in: int, c_out: int, factor: tuple[int, int, int]):
        super().__init__(c_in, c_out, 3, padding=1)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        x = autocast(x)
        if products.takes(x, self.out_channels, self.factor):
            return UpConvolution.apply(x, self.weight, self.bias, self.factor)
        weight = self.weight.transpose(0, 1).flip(2, 3, 4)  # (c_in, c_out, 3, 3, 3)
        for axis, factor in enumerate(self.factor, start=2):
            if factor == 2:  # 3 taps become 4
                before = [0, 0] * (4 - axis)
                weight = F.pad(weight, [*before, 1, 0]) + F.pad(weight, [*before, 0, 1])
        return F.conv_transpose3d(x, weight, self.bias, stride=self.factor, padding=1)


class UpConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, factor: tuple[int, int, int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.factor = factor
        return products.convolve(x, weight, bias, factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor | None, ...]:
        return *products.gradients(g, *ctx.saved_tensors, ctx.factor, ctx.needs_input_grad[:3]), None
