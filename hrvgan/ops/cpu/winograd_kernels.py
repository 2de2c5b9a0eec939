"""The two kernels that take the time. A few tiles at a time are transformed into tables that stay in the cache, and
multiplied there point by point, as matrices over channels (the convolution) or tiles (its gradient by the weights)."""

import itertools

from llvmlite import ir

from hrvgan.ops.cpu.kernel_base import Value
from hrvgan.ops.cpu.llvm_ir import F32, I32, Index, number
from hrvgan.ops.cpu.winograd_kernel_base import Kernel
from hrvgan.ops.cpu.winograd_plan import MIDDLE, TOGETHER, Plan

DEPTH = 8  # words of tiles to a round of the gradient's product


def convolution(plan: Plan) -> ir.Module:
    """y = At [weight * (Bt x)] + bias. An item is `plan.tiles` tiles.

    weight: words (c_out / wide, points, c_in, wide); where they are bfloat16, pairs of c_in lie side by side.
    """
    k = Kernel(plan)
    c, told, lanes, wide = k.code, k.told, plan.lanes, plan.wide
    table = plan.tiles * plan.words  # words of a point and `lanes` channels
    blocks = c.udiv(told["c_in"], number(lanes))
    inputs_size = c.sum((blocks, plan.points * table))
    inputs = c.at(told["scratch"], c.mul(k.thread, told["scratch_size"]), I32)
    products = c.at(inputs, inputs_size, I32)
    ring = c.at(products, plan.products * plan.tiles * wide, I32)

    with k.items() as item:
        first = c.sum((item, plan.tiles))
        num_tiles = c.least(c.sub(told["tiles"], first), plan.tiles)

        # Transform what the tiles see: (blocks, points, tiles, words).
        def put_inputs(channel: Value, tile: Value, point: int, values: list[Value]) -> None:
            block = c.udiv(channel, number(lanes))
            place = c.sum((block, plan.points * table), (tile, plan.words), point * table)
            for i, value in enumerate(values):
                c.put_channels(value, c.at(inputs, c.sum(place, i * plan.words), I32))

        k.transform_inputs([axis.Bt for axis in plan.axes], first, num_tiles, num_tiles, ring, put_inputs)
        with c.loop(told["c_out"], wide) as channel:
            # Multiply point by point: (products, tiles, wide).
            weights = c.at(told["weight"], c.sum((channel, c.sum((blocks, plan.points * plan.words)))), I32)
            with c.loop(plan.points // plan.together) as group, c.loop(plan.tiles, plan.rows) as row:
                multiply(k, blocks, inputs, weights, products, group, row)

            # Transform back.
            with c.loop(num_tiles) as tile, c.loop(wide, lanes) as column:
                put_outputs(k, products, c.sum(first, tile), tile, channel, column)
    return k.module


def multiply(
    k: Kernel, blocks: Value, inputs: Value, weights: Value, products: Value, group: Value, row: Value
) -> None:
    """The products of a group of points; of a line of them, what the last axis makes of it."""
    c, plan = k.code, k.plan
    table, depth = plan.tiles * plan.words, plan.words * plan.wide
    first = c.sum((group, plan.together))
    a_start = c.sum((first, table), (row, plan.words))
    b_start = c.sum((c.mul(first, blocks), depth))
    point_stride = c.mul(blocks, number(depth))

    def a(point: int, block: Index, inner: int, i: int) -> Value:
        away = point * table + i * plan.words + inner
        return c.at(inputs, c.sum(a_start, (block, plan.points * table), away), I32)

    def b(point: int, block: Index, inner: int, j: int) -> Value:
        away = c.sum((point_stride, point), (block, depth), inner * plan.wide + j * plan.lanes)
        return c.at(weights, c.sum(b_start, away), I32)

    size = plan.rows * plan.columns
    nothing = [c.constant(F32, 0.0)] * (plan.together * size)
    sums = k.product(blocks, plan.words, nothing, a, b, plan.together)
    start = c.sum((group, len(plan.line) * plan.tiles * plan.wide), (row, plan.wide))
    for i in range(size):
        for j, matrix_row in enumerate(plan.line):
            away = j * plan.tiles * plan.wide + i * plan.lanes
            c.put_vector(c.combine(matrix_row, sums[i::size]), products, c.sum(start, away))


def put_outputs(k: Kernel, products: Value, tile: Value, row: Value, channel: Value, column: Value) -> None:
    """Stores what of y is a tile's, in `lanes` channels."""
    c, plan = k.code, k.plan
    here = c.sum(channel, column)
    start, pointer = c.sum((row, plan.wide), column), k.outputs(tile, here)
    bias = c.vector_at(k.told["bias"], here)
    d, h, w = (axis.At for axis in plan.axes)
    if plan.together > 1:  # The last axis is done.
        w = tuple(tuple(float(i == j) for j in range(len(w))) for i in range(len(w)))

    def product(i: int, j: int, m: int) -> Value:
        place = (i * plan.axes[1].points + j) * len(w[0]) + m
        return c.vector_at(products, c.sum(start, place * plan.tiles * plan.wide))

    places = itertools.product(*(range(axis.outputs) for axis in plan.axes))
    for place, total in zip(places, k.transformed([d, h, w], product), strict=True):
        c.put_channels(c.fadd(total, bias), pointer(*place))


def gradient_by_weight(plan: Plan) -> ir.Module:
    """The sum over tiles of (A g) (Bt x)^T, of which Gt makes the gradient by the weights; `y` is g.

    An item is one point of the first axis in one segment of the tiles.

    weight: float32 (segments, points, c_in, c_out), written whole. A segment is of `segment` tiles.
    bias: float32 (segments, first points, c_out). Of the middle first point, these are the sums of g.
    """
    k = Kernel(plan)
    c, told, first_axis = k.code, k.told, plan.axes[0]
    table = plan.plane * plan.tiles // plan.pair  # words of one channel
    size = c.sum((told["c_in"], c.sum((told["c_out"], plan.plane))))  # of the sums of an item
    inputs = c.at(told["scratch"], c.mul(k.thread, told["scratch_size"]), I32)
    outputs = c.at(inputs, c.sum((told["c_in"], table)), I32)
    ring = c.at(outputs, c.sum((told["c_out"], table)), I32)

    with k.items() as item:
        sums = c.at(told["weight"], c.mul(item, size), F32)
        with c.loop(size, plan.lanes) as i:
            c.put_vector(c.constant(F32, 0.0), sums, i)
        totals = c.at(told["bias"], c.mul(item, told["c_out"]), F32)
        with c.loop(told["c_out"], plan.lanes) as i:
            c.put_vector(c.constant(F32, 0.0), totals, i)
        start = c.mul(c.udiv(item, number(first_axis.points)), told["segment"])
        stop = c.least(told["tiles"], c.sum(start, told["segment"]))
        with c.loop(stop, plan.tiles, start) as first:
            num_tiles = c.least(c.sub(stop, first), plan.tiles)
            with c.cases(c.urem(item, number(first_axis.points)), first_axis.points) as cases:
                for point in cases:
                    transform_both(k, point, inputs, outputs, ring, totals, first, num_tiles)
            across, down = c.loop(told["c_out"], plan.wide), c.loop(told["c_in"], plan.rows)
            with c.loop(plan.plane) as point, down as c_in, across as c_out:
                add_products(k, inputs, outputs, sums, point, c_in, c_out)
    return k.module


def transform_both(
    k: Kernel, point: int, inputs: Value, outputs: Value, ring: Value, totals: Value, first: Value, num_tiles: Value
) -> None:  # fmt: skip
    """Tables of x and of g for one point of the first axis: words (channels / lanes, points, tiles, lanes), of pairs of
    tiles where they are bfloat16. Those after `num_tiles` are zeros."""
    c, plan, (d, h, w) = k.code, k.plan, k.plan.axes
    span = plan.tiles // plan.pair * plan.lanes

    def put(table: Value, channel: Value, tile: Value, point: int, values: list[Value]) -> None:
        row = c.udiv(tile, number(plan.pair))
        place = c.sum((channel, plan.plane * span // plan.lanes), (row, plan.lanes), point * span)
        for i, value in enumerate([c.pairs(*values)] if plan.half else values):
            c.put_vector(value, table, c.sum(place, i * plan.lanes))

    Bt = (d.Bt[point : point + 1], h.Bt, w.Bt)
    k.transform_inputs(Bt, first, num_tiles, plan.tiles, ring, lambda *about: put(inputs, *about))
    with c.loop(plan.tiles, TOGETHER) as tile, c.loop(k.told["c_out"], plan.lanes) as channel:
        there = c.icmp_signed("<", tile, num_tiles)
        seen = [k.outputs_seen(c.sum(first, tile, i), channel, there) for i in range(TOGETHER)]
        values = [k.transformed((d.A[point : point + 1], h.A, w.A), each) for each in seen]
        for i, value in enumerate(zip(*values, strict=True)):
            put(outputs, channel, tile, i, value)
            if i == plan.point(0, MIDDLE, MIDDLE):
                for one in value:
                    c.put_vector(c.fadd(c.vector_at(totals, channel), one), totals, channel)


def add_products(
    k: Kernel, inputs: Value, outputs: Value, sums: Value, point: Value, c_in: Value, c_out: Value
) -> None:
    c, plan, lanes = k.code, k.plan, k.plan.lanes
    span = plan.tiles // plan.pair * lanes
    a_start = c.sum(
        (c.udiv(c_in, number(lanes)), plan.plane * span), (point, span), c.urem(c_in, number(lanes))
    )
    b_start = c.sum((c.udiv(c_out, number(lanes)), plan.plane * span), (point, span))
    corner = c.sum((c.sum((point, k.told["c_in"]), c_in), k.told["c_out"]), c_out)
    places = [
        c.sum(corner, (k.told["c_out"], i), j * lanes) for i in range(plan.rows) for j in range(plan.columns)
    ]

    def a(_: int, block: Index, inner: int, i: int) -> Value:
        return c.at(inputs, c.sum(a_start, (block, DEPTH * lanes), inner * lanes + i), I32)

    def b(_: int, block: Index, inner: int, j: int) -> Value:
        return c.at(
            outputs, c.sum(b_start, (block, DEPTH * lanes), j * plan.plane * span + inner * lanes), I32
        )

    before = [c.vector_at(sums, place) for place in places]
    rounds = number(plan.tiles // plan.pair // DEPTH)
    for place, value in zip(places, k.product(rounds, DEPTH, before, a, b), strict=True):
        c.put_vector(value, sums, place)
