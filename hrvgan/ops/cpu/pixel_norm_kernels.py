"""ReLU(n * gain + shift), n = x / sqrt(mean over channels of x^2 + 1e-8), and its gradient. A pixel's channels are in
registers from the first to the last of it. An item is a frame."""

import functools

from llvmlite import ir

from hrvgan.ops.cpu.elementwise_plan import FIELDS, Plan
from hrvgan.ops.cpu.kernel_base import Program, Value
from hrvgan.ops.cpu.llvm_ir import F32, Index, number, vector

EPSILON = 1e-8


class Chain(Program):
    def __init__(self, plan: Plan):
        super().__init__(FIELDS, plan.lanes, plan.half)
        self.plan, self.kind = plan, vector(F32, plan.lanes)
        self.pixels = self.code.mul(self.told["height"], self.told["width"])
        self.places = range(0, plan.channels, plan.lanes)
        name = f"v{plan.lanes}f32"
        self.fma = self.declare(f"llvm.fma.{name}", self.kind, [self.kind] * 3)
        self.add_lanes = self.declare(f"llvm.vector.reduce.fadd.{name}", F32, [F32, self.kind])
        self.root = self.declare("llvm.sqrt.f32", F32, [F32])

    def pointers(self, name: str, frame: Value, pixel: Index) -> list[Value]:
        """Where the vectors of a pixel lie in a tensor (frames, pixels, channels)."""
        c = self.code
        first = c.mul(c.sum((frame, self.pixels), pixel), number(self.plan.channels))
        return [c.at(self.told[name], c.sum(first, place), c.element) for place in self.places]

    def row(self, name: str, index: Value) -> list[Value]:
        """Where the vectors of a row lie in float32 (rows, channels)."""
        c, first = self.code, self.code.mul(index, number(self.plan.channels))
        return [c.at(self.told[name], c.sum(first, place), F32) for place in self.places]

    def vector_at(self, pointer: Value) -> Value:
        return self.code.load(pointer, typ=self.kind, align=4)

    def mean_product(self, a: list[Value], b: list[Value]) -> Value:
        """The mean over channels of a b, as a number."""
        c, zero = self.code, ir.Constant(F32, 0.0)
        total = functools.reduce(lambda so_far, pair: c.call(self.fma, [*pair, so_far]), zip(a, b, strict=True),
                                 c.constant(F32, 0.0))  # fmt: skip
        whole = c.call(self.add_lanes, [zero, total], fastmath=("reassoc",))
        return c.fmul(whole, ir.Constant(F32, 1 / self.plan.channels))

    def normalised(self, x: list[Value]) -> tuple[list[Value], Value]:
        """n, and what x was multiplied by."""
        c = self.code
        square = c.fadd(self.mean_product(x, x), ir.Constant(F32, EPSILON))
        scale = c.spread(c.fdiv(ir.Constant(F32, 1.0), c.call(self.root, [square])))
        return [c.fmul(v, scale) for v in x], scale

    def modulated(self, n: list[Value], span: Value) -> tuple[list[Value], list[Value]]:
        """n * gain + shift, and gain."""
        gain, shift = ([self.vector_at(p) for p in self.row(name, span)] for name in ("gain", "shift"))
        return [self.code.call(self.fma, each) for each in zip(n, gain, shift, strict=True)], gain

    def flat_below_zero(self, value: Value, then: Value) -> Value:
        """`then` where `value` is above zero, or no number: a training that has diverged is to be seen as one."""
        c, zero = self.code, self.code.constant(F32, 0.0)
        return c.select(c.fcmp_unordered(">", value, zero), then, zero)


def pixel_norm(plan: Plan) -> ir.Module:
    """x -> y, in the dtype of the tensors; gain and shift are float32 (spans, channels)."""
    k = Chain(plan)
    c = k.code
    with k.items() as frame:
        span = c.udiv(frame, k.told["span"])
        with c.loop(k.pixels) as pixel:
            n, _ = k.normalised([c.channels(p) for p in k.pointers("x", frame, pixel)])
            values, _ = k.modulated(n, span)
            for value, pointer in zip(values, k.pointers("y", frame, pixel), strict=True):
                c.put_channels(k.flat_below_zero(value, value), pointer)
    return k.module


def pixel_norm_gradients(plan: Plan) -> ir.Module:
    """g, the gradient by y, and x -> y, here the gradient by x; and by gain and shift float32 (frames, channels)."""
    k = Chain(plan)
    c, zero = k.code, k.code.constant(F32, 0.0)
    with k.items() as frame:
        span = c.udiv(frame, k.told["span"])

        totals = k.row("by_gain", frame) + k.row("by_shift", frame)
        for pointer in totals:
            c.store(zero, pointer, align=4)

        def through(pixel: Value, sums: list[Value]) -> list[Value]:
            """A pixel's part in the gradients; those by gain and shift are added to the `sums` of its line."""
            n, scale = k.normalised([c.channels(p) for p in k.pointers("x", frame, pixel)])
            values, gain = k.modulated(n, span)
            g = [c.channels(p) for p in k.pointers("g", frame, pixel)]
            inner = [k.flat_below_zero(*pair) for pair in zip(values, g, strict=True)]
            outer = [c.fmul(*pair) for pair in zip(inner, gain, strict=True)]

            # Through x / |x|: what points along x falls out.
            along = c.spread(k.mean_product(outer, n))
            for v, each, pointer in zip(n, outer, k.pointers("y", frame, pixel), strict=True):
                c.put_channels(c.fmul(c.fsub(each, c.fmul(v, along)), scale), pointer)

            by_gain, by_shift = sums[: len(n)], sums[len(n) :]
            by_gain = [c.call(k.fma, each) for each in zip(inner, n, by_gain, strict=True)]
            return by_gain + [c.fadd(*pair) for pair in zip(inner, by_shift, strict=True)]

        with c.loop(k.told["height"]) as h:  # Sums of sums: rounding grows with how many are added to one.
            start = c.mul(h, k.told["width"])
            line = c.repeat(
                k.told["width"], [zero] * len(totals), lambda w, sums: through(c.sum(start, w), sums)
            )
            for value, pointer in zip(line, totals, strict=True):
                c.store(c.fadd(k.vector_at(pointer), value), pointer, align=4)
    return k.module
