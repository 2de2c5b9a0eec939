"""Means of blocks of LeakyReLU(x), and what goes back through them. Of x the signs are kept, a bit for each number. An
item is a frame of means."""

import functools
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from llvmlite import ir

from hrvgan.ops.cpu.elementwise_plan import FIELDS, Plan
from hrvgan.ops.cpu.kernel_base import Program, Value
from hrvgan.ops.cpu.llvm_ir import F32, number


class Chain(Program):
    def __init__(self, plan: Plan):
        super().__init__(FIELDS, plan.lanes, plan.half)
        self.plan, self.bits = plan, ir.IntType(plan.lanes)

    @contextmanager
    def blocks(self) -> Iterator[tuple[Value, list[Value]]]:
        """The body is done for each vector of means: where it is, and where those are whose mean it is."""
        c, told, plan = self.code, self.told, self.plan
        with self.items() as frame, c.loop(told["height"]) as h, c.loop(told["width"]) as w:
            mean = c.sum((c.sum((frame, told["height"]), h), told["width"]), w)
            pixels = []
            for t, i, j in itertools.product(range(plan.time), range(2), range(2)):
                row = c.sum((c.sum((frame, plan.time), t), c.mul(told["height"], number(2))), (h, 2), i)
                pixels.append(c.sum((row, c.mul(told["width"], number(2))), (w, 2), j))
            with c.loop(plan.channels, plan.lanes) as channel:
                first, *others = (c.sum((pixel, plan.channels), channel) for pixel in (mean, *pixels))
                yield first, others

    def read(self, name: str, place: Value) -> Value:
        return self.code.channels(self.code.at(self.told[name], place, self.code.element))

    def write(self, value: Value, name: str, place: Value) -> None:
        self.code.put_channels(value, self.code.at(self.told[name], place, self.code.element))

    def kept(self, place: Value) -> Value:
        """A pointer to the signs of the vector there."""
        return self.code.at(self.told["kept"], self.code.udiv(place, number(self.plan.lanes)), self.bits)

    def signs(self, place: Value) -> Value:
        c = self.code
        lanes = ir.VectorType(ir.IntType(1), self.plan.lanes)
        return c.bitcast(c.load(self.kept(place), typ=self.bits, align=1), lanes)

    def sloped(self, positive: Value, value: Value) -> Value:
        """`value` where `positive`, elsewhere times the slope."""
        c = self.code
        return c.select(positive, value, c.fmul(value, c.constant(F32, self.plan.slope)))

    def mean(self, values: list[Value]) -> Value:
        c = self.code
        return c.fmul(functools.reduce(c.fadd, values), c.constant(F32, 1 / len(values)))


def leaky_relu_pooled(plan: Plan) -> ir.Module:
    """x -> y, the means, and kept, the signs of x."""
    k = Chain(plan)
    c, zero = k.code, k.code.constant(F32, 0.0)
    with k.blocks() as (mean, places):
        values = []
        for place in places:
            value = k.read("x", place)
            positive = c.fcmp_ordered(">", value, zero)
            c.store(c.bitcast(positive, k.bits), k.kept(place), align=1)
            values.append(k.sloped(positive, value))
        k.write(k.mean(values), "y", mean)
    return k.module


def leaky_relu_spread(plan: Plan) -> ir.Module:
    """g, the gradient by the means, and kept -> y, here the gradient by x."""
    k = Chain(plan)
    with k.blocks() as (mean, places):
        share = k.code.fmul(k.read("g", mean), k.code.constant(F32, 1 / len(places)))
        for place in places:
            k.write(k.sloped(k.signs(place), share), "y", place)
    return k.module


def leaky_relu_pooled_again(plan: Plan) -> ir.Module:
    """x, the gradient by the gradient by x, and kept -> y, that by g."""
    k = Chain(plan)
    with k.blocks() as (mean, places):
        k.write(k.mean([k.sloped(k.signs(place), k.read("x", place)) for place in places]), "y", mean)
    return k.module
