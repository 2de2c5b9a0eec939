"""Between the 27 taps of a kernel and its points: before a convolution, and after its gradient by the weights."""

import functools
from collections.abc import Callable

from llvmlite import ir

from hrvgan.ops.cpu.kernel_base import Value
from hrvgan.ops.cpu.llvm_ir import number
from hrvgan.ops.cpu.winograd_kernel_base import Kernel
from hrvgan.ops.cpu.winograd_plan import Plan


def transform_weights(plan: Plan) -> ir.Module:
    """G w. An item is one channel of the input, or a pair.

    x: float32 weights, an element at c_in * in_stride + c_out * out_stride + tap * tap_stride.
    weight: words (c_out / wide, points, c_in, wide); where they are bfloat16, pairs of c_in lie side by side.
    """
    k = Kernel(plan)
    c, told = k.code, k.told
    blocks = c.udiv(told["c_in"], number(plan.pair))
    with k.items() as item, c.loop(told["c_out"], plan.lanes) as c_out:
        made = []
        for i in range(plan.pair):
            c_in = c.sum((item, plan.pair), i)
            start = c.sum((c_in, told["in_stride"]), (c_out, told["out_stride"]))
            made.append(k.transformed([axis.G for axis in plan.axes], taps(k, start)))
        group, column = c.udiv(c_out, number(plan.wide)), c.urem(c_out, number(plan.wide))
        for point, values in enumerate(zip(*made, strict=True)):
            row = c.sum((c.sum((group, plan.points), point), blocks), item)
            word = c.pairs(*values) if plan.half else values[0]
            c.put_vector(word, told["weight"], c.sum((row, plan.wide), column))
    return k.module


def taps(k: Kernel, start: Value) -> Callable[[int, int, int], Value]:
    """Weights of one channel of the input, for a vector of those of the output."""
    c, told = k.code, k.told

    @functools.cache
    def tap(i: int, j: int, m: int) -> Value:
        first = c.sum(start, (told["tap_stride"], (3 * i + j) * 3 + m))
        return c.strided(told["x"], first, told["out_stride"])

    return tap


def transform_sums(plan: Plan) -> ir.Module:
    """Gt of the sums of `gradient_by_weight`: the gradient by the weights. An item is one channel of the input.

    x: float32 (points, c_in, c_out). y: float32 (c_out, c_in, 27).
    """
    k = Kernel(plan)
    c, told = k.code, k.told
    size = c.mul(told["c_in"], told["c_out"])  # of a point
    with k.items() as c_in, c.loop(told["c_out"], plan.lanes) as c_out:
        here = c.sum((c_in, told["c_out"]), c_out)

        @functools.cache
        def total(*index: int) -> Value:
            return c.vector_at(told["x"], c.sum(here, (size, plan.point(*index))))

        start = c.sum((c.sum((c_out, told["c_in"]), c_in), 27))
        for tap, value in enumerate(k.transformed([axis.Gt for axis in plan.axes], total)):
            c.put_strided(value, told["y"], c.sum(start, tap), c.sum((told["c_in"], 27)))
    return k.module
