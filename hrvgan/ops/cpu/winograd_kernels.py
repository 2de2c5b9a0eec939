"""Generators of the Winograd kernels: the convolution, its weight gradient, and the transforms of the weights.

The first two transform a few tiles at a time into tables that stay in the cache, and multiply these point by point, as
matrices over channels (the convolution) or tiles (the weight gradient).
"""

import functools
import itertools
from collections.abc import Callable

from llvmlite import ir

from hrvgan.ops.cpu.jit import Layout
from hrvgan.ops.cpu.llvm_ir import F32, I32, Index, Value, number
from hrvgan.ops.cpu.winograd_schemes import MIDDLE, NUM_NEIGHBOURS, Plan
from hrvgan.ops.cpu.winograd_tiles import TileProgram, WinogradProgram

DEPTH = 8  # words of tiles to a round of the gradient's product


def generate_convolution(plan: Plan, layout: Layout) -> ir.Module:
    """y = At [weight * (Bt x)] + bias. An item is `plan.tiles` tiles.

    weight: words (c_out / wide, points, c_in, wide); where they are bfloat16, pairs of c_in lie side by side.
    """
    k = TileProgram(plan, layout)
    c, args, lanes, wide = k.code, k.args, plan.lanes, plan.wide
    table = plan.tiles * plan.words  # words of a point and `lanes` channels
    blocks = c.udiv(args["c_in"], number(lanes))
    inputs_size = c.sum((blocks, plan.points * table))
    inputs = c.at(args["scratch"], c.mul(k.thread, args["scratch_size"]), I32)
    products = c.at(inputs, inputs_size, I32)
    ring = c.at(products, plan.num_stored * plan.tiles * wide, I32)

    with k.items() as item:
        first = c.sum((item, plan.tiles))
        num_tiles = c.least(c.sub(args["tiles"], first), plan.tiles)

        # Transform the inputs: (blocks, points, tiles, words).
        def put_inputs(channel: Value, tile: Value, point: int, values: list[Value]) -> None:
            block = c.udiv(channel, number(lanes))
            place = c.sum((block, plan.points * table), (tile, plan.words), point * table)
            for i, value in enumerate(values):
                c.put_channels(value, c.at(inputs, c.sum(place, i * plan.words), I32))

        k.transform_inputs([axis.Bt for axis in plan.axes], first, num_tiles, num_tiles, ring, put_inputs)
        with c.loop(args["c_out"], wide) as channel:
            # Multiply point by point: (num_stored, tiles, wide).
            weights = c.at(args["weight"], c.sum((channel, c.sum((blocks, plan.points * plan.words)))), I32)
            with c.loop(plan.points // plan.num_points) as group, c.loop(plan.tiles, plan.rows) as row:
                multiply(k, blocks, inputs, weights, products, group, row)

            # Transform back.
            with c.loop(num_tiles) as tile, c.loop(wide, lanes) as column:
                put_outputs(k, products, c.sum(first, tile), tile, channel, column)
    return k.module


def multiply(
    k: TileProgram, blocks: Value, inputs: Value, weights: Value, products: Value, group: Value, row: Value
) -> None:
    """Stores the sums of a group of points; those of a whole line of points after the transform of the last axis."""
    c, plan = k.code, k.plan
    table, depth = plan.tiles * plan.words, plan.words * plan.wide
    first = c.sum((group, plan.num_points))
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
    nothing = [c.constant(F32, 0.0)] * (plan.num_points * size)
    sums = k.product(blocks, plan.words, nothing, a, b, plan.num_points)
    start = c.sum((group, len(plan.line) * plan.tiles * plan.wide), (row, plan.wide))
    for i in range(size):
        for j, matrix_row in enumerate(plan.line):
            away = j * plan.tiles * plan.wide + i * plan.lanes
            c.put_vector(c.combine(matrix_row, sums[i::size]), products, c.sum(start, away))


def put_outputs(
    k: TileProgram, products: Value, tile: Value, row: Value, channel: Value, column: Value
) -> None:
    """Stores a tile of y, in `lanes` channels."""
    c, plan = k.code, k.plan
    here = c.sum(channel, column)
    start, pointer = c.sum((row, plan.wide), column), k.outputs(tile, here)
    bias = c.vector_at(k.args["bias"], here)
    d, h, w = (axis.At for axis in plan.axes)
    if plan.num_points > 1:  # The last axis is transformed.
        w = tuple(tuple(float(i == j) for j in range(len(w))) for i in range(len(w)))

    def product(i: int, j: int, m: int) -> Value:
        place = (i * plan.axes[1].points + j) * len(w[0]) + m
        return c.vector_at(products, c.sum(start, place * plan.tiles * plan.wide))

    places = itertools.product(*(range(axis.outputs) for axis in plan.axes))
    for place, total in zip(places, k.transformed([d, h, w], product), strict=True):
        c.put_channels(c.fadd(total, bias), pointer(*place))


def generate_weight_gradient(plan: Plan, layout: Layout) -> ir.Module:
    """The sum over tiles of (A g) (Bt x)^T, which Gt transforms to the weight gradient; `y` is g.

    An item is one point of the first axis in one segment of the tiles.

    sums: float32 (segments, points, c_in, c_out), written whole. A segment has `segment` tiles.
    totals: float32 (segments, first points, c_out). Those of the middle first point are the sums of g.
    """
    k = TileProgram(plan, layout)
    c, args, first_axis = k.code, k.args, plan.axes[0]
    table = plan.plane * plan.tiles // plan.pair  # words of one channel
    size = c.sum((args["c_in"], c.sum((args["c_out"], plan.plane))))  # of the sums of an item
    inputs = c.at(args["scratch"], c.mul(k.thread, args["scratch_size"]), I32)
    outputs = c.at(inputs, c.sum((args["c_in"], table)), I32)
    ring = c.at(outputs, c.sum((args["c_out"], table)), I32)

    with k.items() as item:
        sums = c.at(args["sums"], c.mul(item, size), F32)
        with c.loop(size, plan.lanes) as i:
            c.put_vector(c.constant(F32, 0.0), sums, i)
        totals = c.at(args["totals"], c.mul(item, args["c_out"]), F32)
        with c.loop(args["c_out"], plan.lanes) as i:
            c.put_vector(c.constant(F32, 0.0), totals, i)
        start = c.mul(c.udiv(item, number(first_axis.points)), args["segment"])
        stop = c.least(args["tiles"], c.sum(start, args["segment"]))
        with c.loop(stop, plan.tiles, start) as first:
            num_tiles = c.least(c.sub(stop, first), plan.tiles)
            with c.cases(c.urem(item, number(first_axis.points)), first_axis.points) as cases:
                for point in cases:
                    transform_both(k, point, inputs, outputs, ring, totals, first, num_tiles)
            across, down = c.loop(args["c_out"], plan.wide), c.loop(args["c_in"], plan.rows)
            with c.loop(plan.plane) as point, down as c_in, across as c_out:
                add_products(k, inputs, outputs, sums, point, c_in, c_out)
    return k.module


def transform_both(
    k: TileProgram, point: int, inputs: Value, outputs: Value, ring: Value, totals: Value, first: Value,
    num_tiles: Value,
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
    with c.loop(plan.tiles, NUM_NEIGHBOURS) as tile, c.loop(k.args["c_out"], plan.lanes) as channel:
        there = c.icmp_signed("<", tile, num_tiles)
        seen = [k.outputs_seen(c.sum(first, tile, i), channel, there) for i in range(NUM_NEIGHBOURS)]
        values = [k.transformed((d.A[point : point + 1], h.A, w.A), each) for each in seen]
        for i, value in enumerate(zip(*values, strict=True)):
            put(outputs, channel, tile, i, value)
            if i == plan.point(0, MIDDLE, MIDDLE):
                for one in value:
                    c.put_vector(c.fadd(c.vector_at(totals, channel), one), totals, channel)


def add_products(
    k: TileProgram, inputs: Value, outputs: Value, sums: Value, point: Value, c_in: Value, c_out: Value
) -> None:
    c, plan, lanes = k.code, k.plan, k.plan.lanes
    span = plan.tiles // plan.pair * lanes
    a_start = c.sum(
        (c.udiv(c_in, number(lanes)), plan.plane * span), (point, span), c.urem(c_in, number(lanes))
    )
    b_start = c.sum((c.udiv(c_out, number(lanes)), plan.plane * span), (point, span))
    corner = c.sum((c.sum((point, k.args["c_in"]), c_in), k.args["c_out"]), c_out)
    places = [
        c.sum(corner, (k.args["c_out"], i), j * lanes) for i in range(plan.rows) for j in range(plan.columns)
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


def generate_weight_transform(plan: Plan, layout: Layout) -> ir.Module:
    """G w. An item is one channel of the input, or a pair.

    x: float32 weights, an element at c_in * in_stride + c_out * out_stride + index * weight_stride.
    weight: words (c_out / wide, points, c_in, wide); where they are bfloat16, pairs of c_in lie side by side.
    """
    k = WinogradProgram(plan, layout)
    c, args = k.code, k.args
    blocks = c.udiv(args["c_in"], number(plan.pair))
    with k.items() as item, c.loop(args["c_out"], plan.lanes) as c_out:
        made = []
        for i in range(plan.pair):
            c_in = c.sum((item, plan.pair), i)
            start = c.sum((c_in, args["in_stride"]), (c_out, args["out_stride"]))
            made.append(k.transformed([axis.G for axis in plan.axes], weights_at(k, start)))
        group, column = c.udiv(c_out, number(plan.wide)), c.urem(c_out, number(plan.wide))
        for point, values in enumerate(zip(*made, strict=True)):
            row = c.sum((c.sum((group, plan.points), point), blocks), item)
            word = c.pairs(*values) if plan.half else values[0]
            c.put_vector(word, args["weight"], c.sum((row, plan.wide), column))
    return k.module


def weights_at(k: WinogradProgram, start: Value) -> Callable[[int, int, int], Value]:
    """The weights of one input channel, for a vector of output channels."""
    c, args = k.code, k.args

    @functools.cache
    def weight(i: int, j: int, m: int) -> Value:
        first = c.sum(start, (args["weight_stride"], (3 * i + j) * 3 + m))
        return c.strided(args["x"], first, args["out_stride"])

    return weight


def generate_weight_gradient_transform(plan: Plan, layout: Layout) -> ir.Module:
    """The weight gradient, Gt applied to the sums of `generate_weight_gradient`. An item is one channel of the input.

    x: float32 (points, c_in, c_out). y: float32 (c_out, c_in, 27).
    """
    k = WinogradProgram(plan, layout)
    c, args = k.code, k.args
    size = c.mul(args["c_in"], args["c_out"])  # of a point
    with k.items() as c_in, c.loop(args["c_out"], plan.lanes) as c_out:
        here = c.sum((c_in, args["c_out"]), c_out)

        @functools.cache
        def total(*index: int) -> Value:
            return c.vector_at(args["x"], c.sum(here, (size, plan.point(*index))))

        start = c.sum((c.sum((c_out, args["c_in"]), c_in), 27))
        for index, value in enumerate(k.transformed([axis.Gt for axis in plan.axes], total)):
            c.put_strided(value, args["y"], c.sum(start, index), c.sum((args["c_in"], 27)))
    return k.module
