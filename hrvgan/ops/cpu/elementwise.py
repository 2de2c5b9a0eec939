"""Kernels of the elementwise operations. Clips are (N, C, T, H, W), float32 or bfloat16, and lie as (N, T, H, W, C).

First come the calls on tensors, then the kernels' generators.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from llvmlite import ir
from torch import Tensor

from hrvgan.ops.allocator import empty_clips
from hrvgan.ops.cpu import jit
from hrvgan.ops.cpu.jit import Layout
from hrvgan.ops.cpu.llvm_ir import F32, Number, Program, Value

MAX_NORM_CHANNELS = 256  # a pixel's channels are in registers; the code grows with them
EPSILON = 1e-8
Factor = tuple[int, int, int]  # of the blocks whose means are taken
FACTORS = ((1, 2, 2), (2, 2, 2))


class Plan(NamedTuple):
    """Constants that a kernel is compiled for."""

    lanes: int  # channels in a vector of float32
    half: bool  # bfloat16 in memory
    channels: int
    slope: float = 0.0  # of LeakyReLU
    time: int = 1  # frames in a block


def supports_pixel_norm(x: Tensor, gain: Tensor, shift: Tensor) -> bool:
    """True if the kernels take these shapes."""
    fit = gain.shape == shift.shape and gain.shape in ((*x.shape[:2], t, 1, 1) for t in (1, x.shape[2]))
    return fit and x.numel() > 0 and x.shape[1] % 8 == 0 and x.shape[1] <= MAX_NORM_CHANNELS


def supports_pooling(x: Tensor, factor: Factor) -> bool:
    """True if the kernels take these clips."""
    whole = all(n % f == 0 for n, f in zip(x.shape[2:], factor, strict=True))
    return whole and x.numel() > 0 and x.shape[1] % 8 == 0 and factor in FACTORS


def pixel_norm(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """ReLU(pixel_norm(x) * gain + shift). gain and shift (N, C, 1 or T, 1, 1)."""
    x = channels_last(x)
    y = empty_clips(x.shape, x.dtype, x.device)
    tensors = {"x": x, "y": y, "gain": rows(gain), "shift": rows(shift)}
    launch(generate_pixel_norm, plan(x), tensors, frames=x, span=x.shape[2] // gain.shape[2])
    return y


def pixel_norm_gradients(g: Tensor, x: Tensor, gain: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients w.r.t. x, gain and shift, given g = dL/dy."""
    x, g = channels_last(x), channels_last(g)
    n, c, t = x.shape[:3]
    dx, sums = empty_clips(x.shape, x.dtype, x.device), torch.empty(2, n, t, c, device=x.device)
    tensors = {"x": x, "dx": dx, "g": g, "gain": rows(gain), "shift": rows(shift)}
    tensors |= {"dgain": sums[0], "dshift": sums[1]}
    launch(generate_pixel_norm_gradients, plan(x), tensors, frames=x, span=t // gain.shape[2])
    if gain.shape[2] == 1:
        sums = sums.sum(2, keepdim=True)
    return dx, *(v.transpose(1, 2)[..., None, None].to(gain.dtype) for v in sums)


def leaky_relu_pool(x: Tensor, slope: float, factor: Factor) -> tuple[Tensor, Tensor]:
    """Means of blocks of LeakyReLU(x), and the signs of x, a bit each: uint8 (N, T, H, W, C / 8)."""
    x = channels_last(x)
    n, c, *size = x.shape
    y = empty_means(x, factor)
    signs = torch.empty(n, *size, c // 8, dtype=torch.uint8, device=x.device)
    launch(generate_leaky_relu_pool, plan(x, slope, factor[0]), {"x": x, "y": y, "signs": signs}, frames=y)
    return y, signs


def leaky_relu_pool_gradient(g: Tensor, signs: Tensor, slope: float, factor: Factor) -> Tensor:
    """dL/dx, given g = dL/dy."""
    g = channels_last(g)
    dx = empty_clips((*g.shape[:2], *signs.shape[1:4]), g.dtype, g.device)
    tensors = {"g": g, "dx": dx, "signs": signs}
    launch(generate_leaky_relu_pool_gradient, plan(g, slope, factor[0]), tensors, frames=g)
    return dx


def leaky_relu_pool_double_gradient(gg: Tensor, signs: Tensor, slope: float, factor: Factor) -> Tensor:
    """The gradient w.r.t. g of <gg, dx>, where dx = leaky_relu_pool_gradient(g)."""
    gg = channels_last(gg)
    dg = empty_means(gg, factor)
    tensors = {"x": gg, "y": dg, "signs": signs}
    launch(generate_leaky_relu_pool_double_gradient, plan(gg, slope, factor[0]), tensors, frames=dg)
    return dg


def launch(generate: Callable, plan: Plan, tensors: dict[str, Tensor], frames: Tensor, span: int = 1) -> None:
    """Runs a kernel, of whose work an item is one of `frames`; `span` of them in a row have one gain and one shift."""
    n, _, t, h, w = frames.shape
    jit.launch(generate, plan, tensors, items=n * t, height=h, width=w, span=span)


def plan(x: Tensor, slope: float = 0.0, time: int = 1) -> Plan:
    channels = x.shape[1]
    lanes = 16 if jit.lanes() == 16 and channels % 16 == 0 else 8
    return Plan(lanes, x.dtype == torch.bfloat16, channels, slope, time)


def rows(v: Tensor) -> Tensor:
    """v (N, C, S, 1, 1) as float32 (N, S, C)."""
    return v.flatten(2).transpose(1, 2).float().contiguous()


def empty_means(x: Tensor, factor: Factor) -> Tensor:
    size = [n // f for n, f in zip(x.shape[2:], factor, strict=True)]
    return empty_clips((*x.shape[:2], *size), x.dtype, x.device)


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)


class PixelNormProgram(Program):
    def __init__(self, plan: Plan, layout: Layout):
        super().__init__(plan, layout)
        self.pixels = self.args["height"] * self.args["width"]
        name = f"llvm.vector.reduce.fadd.v{plan.lanes}f32"
        self.add_lanes = self.declare(name, F32, [F32, self.code.floats])
        self.root = self.declare("llvm.sqrt.f32", F32, [F32])

    def row(self, name: str, index: Number, kind: ir.Type = F32) -> list[Value]:
        """Pointers to the vectors of row `index` of a tensor (rows, channels) of `kind`."""
        first, places = index * self.plan.channels, range(0, self.plan.channels, self.plan.lanes)
        return [self.code.at(self.args[name], first + place, kind) for place in places]

    def pixel(self, name: str, index: Number) -> list[Value]:
        """Pointers to the vectors of pixel `index` of a tensor (frames, pixels, channels)."""
        return self.row(name, index, self.code.element)

    def mean_product(self, a: list[Value], b: list[Value]) -> Value:
        """The mean over channels of a b, as a number."""
        c, total = self.code, self.code.constant(F32, 0.0)
        for pair in zip(a, b, strict=True):
            total = c.call(self.fma, [*pair, total])
        whole = c.call(self.add_lanes, [ir.Constant(F32, 0.0), total], fastmath=("reassoc",))
        return c.fmul(whole, ir.Constant(F32, 1 / self.plan.channels))

    def normalised(self, x: list[Value]) -> tuple[list[Value], Value]:
        """n = pixel_norm(x), and the factor x was multiplied by."""
        c = self.code
        square = c.fadd(self.mean_product(x, x), ir.Constant(F32, EPSILON))
        scale = c.spread(c.fdiv(ir.Constant(F32, 1.0), c.call(self.root, [square])))
        return [c.fmul(v, scale) for v in x], scale

    def modulated(self, n: list[Value], span: Number) -> tuple[list[Value], list[Value]]:
        """n * gain + shift, and gain."""
        gain, shift = ([self.code.floats_at(p) for p in self.row(name, span)] for name in ("gain", "shift"))
        return [self.code.call(self.fma, each) for each in zip(n, gain, shift, strict=True)], gain

    def flat_below_zero(self, value: Value, then: Value) -> Value:
        """`then` where `value` is above zero or NaN, so that a diverged training shows."""
        c, zero = self.code, self.code.constant(F32, 0.0)
        return c.select(c.fcmp_unordered(">", value, zero), then, zero)


def generate_pixel_norm(plan: Plan, layout: Layout) -> ir.Module:
    """y from x, gain and shift; x and y in the dtype of the tensors, gain and shift float32 (spans, channels)."""
    k = PixelNormProgram(plan, layout)
    c = k.code
    with k.items() as frame:
        span = frame // k.args["span"]
        with c.loop(k.pixels) as pixel:
            place = frame * k.pixels + pixel
            n, _ = k.normalised([c.channels(p) for p in k.pixel("x", place)])
            values, _ = k.modulated(n, span)
            for value, pointer in zip(values, k.pixel("y", place), strict=True):
                c.put_channels(k.flat_below_zero(value, value), pointer)
    return k.module


def generate_pixel_norm_gradients(plan: Plan, layout: Layout) -> ir.Module:
    """dx, dgain and dshift from g and x; dgain and dshift float32 (frames, channels)."""
    k = PixelNormProgram(plan, layout)
    c, zero = k.code, k.code.constant(F32, 0.0)
    with k.items() as frame:
        span = frame // k.args["span"]
        totals = k.row("dgain", frame) + k.row("dshift", frame)
        for pointer in totals:
            c.store(zero, pointer, align=4)
        with c.loop(k.args["height"]) as h:  # Sums of sums: rounding grows with how many are added to one.
            sums = [zero] * len(totals)
            with c.loop(k.args["width"], carried=sums) as w:
                place = frame * k.pixels + (h * k.args["width"] + w)
                n, scale = k.normalised([c.channels(p) for p in k.pixel("x", place)])
                values, gain = k.modulated(n, span)
                g = [c.channels(p) for p in k.pixel("g", place)]
                inner = [k.flat_below_zero(*pair) for pair in zip(values, g, strict=True)]
                outer = [c.fmul(*pair) for pair in zip(inner, gain, strict=True)]

                # Through x / |x|: remove the component along x.
                along = c.spread(k.mean_product(outer, n))
                for v, each, pointer in zip(n, outer, k.pixel("dx", place), strict=True):
                    c.put_channels(c.fmul(c.fsub(each, c.fmul(v, along)), scale), pointer)

                dgain, dshift = sums[: len(n)], sums[len(n) :]
                dgain = [c.call(k.fma, each) for each in zip(inner, n, dgain, strict=True)]
                sums[:] = dgain + [c.fadd(*pair) for pair in zip(inner, dshift, strict=True)]
            for value, pointer in zip(sums, totals, strict=True):
                c.store(c.fadd(c.floats_at(pointer), value), pointer, align=4)
    return k.module


class PoolProgram(Program):
    @contextmanager
    def blocks(self) -> Iterator[tuple[Number, list[Number]]]:
        """The loop over vectors of means: the index of each, and those of the vectors that it is the mean of."""
        c, plan, height, width = self.code, self.plan, self.args["height"], self.args["width"]
        with self.items() as frame, c.loop(height) as h, c.loop(width) as w:
            pixels = [(frame * height + h) * width + w]
            for t, i, j in itertools.product(range(plan.time), range(2), range(2)):
                row = (frame * plan.time + t) * (height * 2) + h * 2 + i
                pixels.append(row * (width * 2) + w * 2 + j)
            with c.loop(plan.channels, plan.lanes) as channel:
                mean, *others = (pixel * plan.channels + channel for pixel in pixels)
                yield mean, others

    def read(self, name: str, place: Number) -> Value:
        return self.code.channels(self.code.at(self.args[name], place, self.code.element))

    def write(self, value: Value, name: str, place: Number) -> None:
        self.code.put_channels(value, self.code.at(self.args[name], place, self.code.element))

    def sign_bits(self, place: Number) -> Value:
        """A pointer to the signs of the vector there."""
        return self.code.at(self.args["signs"], place // self.plan.lanes, ir.IntType(self.plan.lanes))

    def put_signs(self, positive: Value, place: Number) -> None:
        c = self.code
        c.store(c.bitcast(positive, ir.IntType(self.plan.lanes)), self.sign_bits(place), align=1)

    def signs(self, place: Number) -> Value:
        bits = self.code.load(self.sign_bits(place), typ=ir.IntType(self.plan.lanes), align=1)
        return self.code.bitcast(bits, self.code.vector(ir.IntType(1)))

    def sloped(self, positive: Value, value: Value) -> Value:
        """`value` where `positive`, elsewhere times the slope."""
        c = self.code
        return c.select(positive, value, c.fmul(value, c.constant(F32, self.plan.slope)))

    def mean(self, values: list[Value]) -> Value:
        c = self.code
        return c.fmul(functools.reduce(c.fadd, values), c.constant(F32, 1 / len(values)))


def generate_leaky_relu_pool(plan: Plan, layout: Layout) -> ir.Module:
    """y, the means, and signs, those of x, from x."""
    k = PoolProgram(plan, layout)
    with k.blocks() as (mean, places):
        values = []
        for place in places:
            value = k.read("x", place)
            positive = k.code.fcmp_ordered(">", value, k.code.constant(F32, 0.0))
            k.put_signs(positive, place)
            values.append(k.sloped(positive, value))
        k.write(k.mean(values), "y", mean)
    return k.module


def generate_leaky_relu_pool_gradient(plan: Plan, layout: Layout) -> ir.Module:
    """dx from g and signs."""
    k = PoolProgram(plan, layout)
    with k.blocks() as (mean, places):
        share = k.code.fmul(k.read("g", mean), k.code.constant(F32, 1 / len(places)))
        for place in places:
            k.write(k.sloped(k.signs(place), share), "dx", place)
    return k.module


def generate_leaky_relu_pool_double_gradient(plan: Plan, layout: Layout) -> ir.Module:
    """y = dg from x = gg and signs."""
    k = PoolProgram(plan, layout)
    with k.blocks() as (mean, places):
        k.write(k.mean([k.sloped(k.signs(place), k.read("x", place)) for place in places]), "y", mean)
    return k.module
