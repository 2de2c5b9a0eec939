"""Winograd kernels: a 3x3x3 convolution with padding 1, of clips as they are or upsampled, and its gradients.

The convolution and its weight gradient transform a few tiles at a time into tables that stay in the cache, and multiply
these point by point, as matrices over channels (the convolution) or tiles (the weight gradient). First come the calls
on tensors, then the kernels' generators.
"""

import functools
import itertools
import math

import torch
from llvmlite import ir
from torch import Tensor

from hrvgan.ops.allocator import empty, empty_clips
from hrvgan.ops.cpu import jit
from hrvgan.ops.cpu.jit import Layout
from hrvgan.ops.cpu.llvm_ir import F32, I32, Number, Program, Value
from hrvgan.ops.cpu.winograd_schemes import DOWN, MIDDLE, NUM_NEIGHBOURS, Axes, Factor, Plan, schemes
from hrvgan.ops.cpu.winograd_tiles import Element, TileProgram, transformed

DEPTH = 8  # words of tiles to a round of the gradient's product
MIN_TILES = 64  # in a clip: with fewer, transforming the weights costs more than it saves


def supports(x: Tensor, c_out: int, factor: Factor = (1, 1, 1)) -> bool:
    """True if the kernels take this convolution of x (N, C, T, H, W) and are faster than torch."""
    if x.numel() == 0 or x.shape[1] % 8 or c_out % 8:
        return False
    d, h, w = (axis.step for axis in schemes(factor))
    whole = all(n % step == 0 for n, step in zip(x.shape[2:], (d, h, w * NUM_NEIGHBOURS), strict=True))
    enough = math.prod(x.shape[2:]) // (d * h * w) >= MIN_TILES
    return whole and enough and not (x.dtype == torch.bfloat16 and jit.has_amx())


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, factor: Factor = (1, 1, 1)) -> Tensor:
    """x (N, C, T, H, W) upsampled by `factor`, with weight (C', C, 3, 3, 3) and bias (C',), in the dtype of x."""
    return filtered(x, weight, bias, schemes(factor))


def gradients(
    g: Tensor, x: Tensor, weight: Tensor, factor: Factor, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The `wanted` gradients w.r.t. (x, weight, bias) of `convolve`, given g = dL/dy."""
    dx = dweight = dbias = None
    if wanted[0]:
        dx = filtered(g, weight.transpose(0, 1).flip(2, 3, 4), None, schemes(factor, DOWN))
    if wanted[1] or wanted[2]:
        dweight, dbias = (v.to(weight.dtype) for v in parameter_gradients(x, g, schemes(factor)))
    return tuple(v if each else None for v, each in zip((dx, dweight, dbias), wanted, strict=True))


def filtered(x: Tensor, weight: Tensor, bias: Tensor | None, axes: Axes) -> Tensor:
    """`convolve`, each axis by its scheme."""
    x = x.contiguous(memory_format=torch.channels_last_3d)
    c_out, c_in = weight.shape[:2]
    plan = Plan.of_convolution(axes, x.dtype, c_in, c_out)
    tiles = plan.num_tiles(x.shape)
    size = [n // axis.step * axis.outputs for n, axis in zip(x.shape[2:], axes, strict=True)]
    y = empty_clips((len(x), c_out, *size), x.dtype, x.device)
    bias = torch.zeros(c_out, device=x.device) if bias is None else bias.float().contiguous()
    tensors = {"x": x, "y": y, "weight": transformed_weight(weight, plan), "bias": bias}
    work = {"items": -(-tiles["tiles"] // plan.tiles), "scratch_size": plan.scratch(c_in)}
    jit.launch(generate_convolution, plan, tensors, **work, **tiles, c_in=c_in, c_out=c_out)
    return y


def transformed_weight(weight: Tensor, plan: Plan) -> Tensor:
    """weight (C', C, 3, 3, 3) in the words of the kernel."""
    c_out, c_in = weight.shape[:2]
    words = empty((plan.points * c_in * c_out // plan.pair,), device=weight.device)
    tensors = {"x": weight.float().contiguous(), "weight": words}
    items, plan = c_in // plan.pair, plan._replace(rows=0, tiles=0, num_points=1)
    jit.launch(generate_weight_transform, plan, tensors, items=items, c_in=c_in, c_out=c_out)
    return words


def parameter_gradients(x: Tensor, g: Tensor, axes: Axes) -> tuple[Tensor, Tensor]:
    """The gradients w.r.t. weight (C', C, 3, 3, 3) and bias (C',) of `convolve`, float32, given g = dL/dy."""
    x, g = (v.contiguous(memory_format=torch.channels_last_3d) for v in (x, g))
    c_in, c_out = x.shape[1], g.shape[1]
    plan = Plan.of_weight_gradient(axes, x.dtype, c_in, c_out)
    tiles = plan.num_tiles(x.shape)
    segments = max(1, min(8, tiles["tiles"] // 4096))  # Not by threads: sums stay the same to the bit.
    segment = -(-tiles["tiles"] // segments // NUM_NEIGHBOURS) * NUM_NEIGHBOURS
    sums = empty((segments, plan.points, c_in, c_out), device=x.device)
    totals = torch.empty(segments, axes[0].points, c_out, device=x.device)
    channels = {"c_in": c_in, "c_out": c_out}
    tensors = {"x": x, "y": g, "sums": sums, "totals": totals}
    work = {"items": segments * axes[0].points, "scratch_size": plan.weight_gradient_scratch(c_in, c_out)}
    jit.launch(generate_weight_gradient, plan, tensors, **work, **tiles, **channels, segment=segment)

    gradient = empty((c_out, c_in, 3, 3, 3), device=x.device)
    tensors = {"x": sums[0] if segments == 1 else sums.sum(0), "y": gradient}
    plan = plan._replace(rows=0, tiles=0, half=False)
    jit.launch(generate_weight_gradient_transform, plan, tensors, items=c_in, **channels)
    return gradient, totals[:, MIDDLE].sum(0)


def generate_convolution(plan: Plan, layout: Layout) -> ir.Module:
    """y = At [weight * (Bt x)] + bias. An item is `plan.tiles` tiles.

    weight: words (c_out / wide, points, c_in, wide); where they are bfloat16, pairs of c_in lie side by side.
    """
    k = TileProgram(plan, layout)
    c, args, lanes, wide = k.code, k.args, plan.lanes, plan.wide
    table = plan.tiles * plan.words  # words of a point and `lanes` channels
    blocks = args["c_in"] // lanes
    inputs = k.scratch
    products = c.at(inputs, blocks * (plan.points * table), I32)
    ring = c.at(products, plan.num_stored * plan.tiles * wide, I32)

    with k.items() as item:
        first = item * plan.tiles
        num_tiles = c.least(args["tiles"] - first, plan.tiles)

        # Transform the inputs: (blocks, points, tiles, words).
        def put_inputs(channel: Number, tile: Number, point: int, values: list[Value]) -> None:
            place = channel // lanes * (plan.points * table) + tile * plan.words + point * table
            for i, value in enumerate(values):
                c.put_channels(value, c.at(inputs, place + i * plan.words, I32))

        k.transform_inputs([axis.Bt for axis in plan.axes], first, num_tiles, num_tiles, ring, put_inputs)
        with c.loop(args["c_out"], wide) as channel:
            # Multiply point by point: (num_stored, tiles, wide).
            weights = c.at(args["weight"], channel * (blocks * (plan.points * plan.words)), I32)
            with c.loop(plan.points // plan.num_points) as group, c.loop(plan.tiles, plan.rows) as row:
                multiply(k, blocks, inputs, weights, products, group, row)

            # Transform back.
            with c.loop(num_tiles) as tile, c.loop(wide, lanes) as column:
                put_outputs(k, products, first + tile, tile, channel, column)
    return k.module


def multiply(
    k: TileProgram, blocks: Number, inputs: Value, weights: Value, products: Value, group: Number, row: Number
) -> None:
    """Stores the sums of a group of points; those of a whole line of points after the transform of the last axis."""
    c, plan = k.code, k.plan
    table, depth = plan.tiles * plan.words, plan.words * plan.wide
    first, point_stride = group * plan.num_points, blocks * depth
    a_start, b_start = first * table + row * plan.words, first * blocks * depth

    def a(point: int, block: Number, inner: int, i: int) -> Value:
        away = block * (plan.points * table) + (point * table + i * plan.words + inner)
        return c.at(inputs, a_start + away, I32)

    def b(point: int, block: Number, inner: int, j: int) -> Value:
        away = point_stride * point + block * depth + (inner * plan.wide + j * plan.lanes)
        return c.at(weights, b_start + away, I32)

    size = plan.rows * plan.columns
    sums = [c.constant(F32, 0.0)] * (plan.num_points * size)
    k.add_product(sums, blocks, plan.words, a, b, plan.num_points)
    start = group * (len(plan.line) * plan.tiles * plan.wide) + row * plan.wide
    for i in range(size):
        for j, matrix_row in enumerate(plan.line):
            away = j * plan.tiles * plan.wide + i * plan.lanes
            c.put_vector(c.combine(matrix_row, sums[i::size]), products, start + away)


def put_outputs(k: TileProgram, products: Value, tile: Number, row: Number, channel: Number, column: Number) -> None:
    """Stores a tile of y, in `lanes` channels."""
    c, plan = k.code, k.plan
    here = channel + column
    start, pointer = row * plan.wide + column, k.outputs(tile, here)
    bias = c.vector_at(k.args["bias"], here)
    d, h, w = (axis.At for axis in plan.axes)
    if plan.num_points > 1:  # The last axis is transformed.
        w = tuple(tuple(float(i == j) for j in range(len(w))) for i in range(len(w)))

    def product(i: int, j: int, m: int) -> Value:
        place = (i * plan.axes[1].points + j) * len(w[0]) + m
        return c.vector_at(products, start + place * plan.tiles * plan.wide)

    places = itertools.product(*(range(axis.outputs) for axis in plan.axes))
    for place, total in zip(places, transformed(c, [d, h, w], product), strict=True):
        c.put_channels(c.fadd(total, bias), pointer(*place))


def generate_weight_gradient(plan: Plan, layout: Layout) -> ir.Module:
    """The sum over tiles of (A g) (Bt x)^T, which Gt transforms to the weight gradient; `y` is g.

    An item is one point of the first axis in one segment of the tiles.

    sums: float32 (segments, points, c_in, c_out), written whole. A segment has `segment` tiles.
    totals: float32 (segments, first points, c_out). Those of the middle first point are the sums of g.
    """
    k = TileProgram(plan, layout)
    c, args, first_points = k.code, k.args, plan.axes[0].points
    table = plan.plane * plan.tiles // plan.pair  # words of one channel
    size = args["c_in"] * (args["c_out"] * plan.plane)  # of the sums of an item
    inputs = k.scratch
    outputs = c.at(inputs, args["c_in"] * table, I32)
    ring = c.at(outputs, args["c_out"] * table, I32)

    with k.items() as item:
        sums, totals = c.at(args["sums"], item * size, F32), c.at(args["totals"], item * args["c_out"], F32)
        for array, length in ((sums, size), (totals, args["c_out"])):
            with c.loop(length, plan.lanes) as i:
                c.put_vector(c.constant(F32, 0.0), array, i)
        start = item // first_points * args["segment"]
        stop = c.least(args["tiles"], start + args["segment"])
        with c.loop(stop, plan.tiles, start) as first:
            num_tiles = c.least(stop - first, plan.tiles)
            for point in range(first_points):
                with c.if_then((item % first_points).equals(point)):
                    transform_both(k, point, inputs, outputs, ring, totals, first, num_tiles)
            across, down = c.loop(args["c_out"], plan.wide), c.loop(args["c_in"], plan.rows)
            with c.loop(plan.plane) as point, down as c_in, across as c_out:
                add_products(k, inputs, outputs, sums, point, c_in, c_out)
    return k.module


def transform_both(
    k: TileProgram, point: int, inputs: Value, outputs: Value, ring: Value, totals: Value, first: Number,
    num_tiles: Number,
) -> None:  # fmt: skip
    """Tables of x and of g for one point of the first axis: words (channels / lanes, points, tiles, lanes), of pairs of
    tiles where they are bfloat16. Those after `num_tiles` are zeros."""
    c, plan, (d, h, w) = k.code, k.plan, k.plan.axes
    span = plan.tiles // plan.pair * plan.lanes

    def put(table: Value, channel: Number, tile: Number, point: int, values: list[Value]) -> None:
        place = channel * (plan.plane * span // plan.lanes) + tile // plan.pair * plan.lanes + point * span
        for i, value in enumerate([c.pack(values)] if plan.half else values):
            c.put_vector(value, table, place + i * plan.lanes)

    Bt = (d.Bt[point : point + 1], h.Bt, w.Bt)
    k.transform_inputs(Bt, first, num_tiles, plan.tiles, ring, functools.partial(put, inputs))
    with c.loop(plan.tiles, NUM_NEIGHBOURS) as tile, c.loop(k.args["c_out"], plan.lanes) as channel:
        seen = [k.outputs_seen(first + tile + i, channel, tile < num_tiles) for i in range(NUM_NEIGHBOURS)]
        values = [transformed(c, (d.A[point : point + 1], h.A, w.A), each) for each in seen]
        for i, value in enumerate(zip(*values, strict=True)):
            put(outputs, channel, tile, i, value)
            if i == plan.point(0, MIDDLE, MIDDLE):
                for one in value:
                    c.put_vector(c.fadd(c.vector_at(totals, channel), one), totals, channel)


def add_products(
    k: TileProgram, inputs: Value, outputs: Value, sums: Value, point: Number, c_in: Number, c_out: Number
) -> None:
    c, plan, lanes = k.code, k.plan, k.plan.lanes
    span = plan.tiles // plan.pair * lanes
    a_start = c_in // lanes * (plan.plane * span) + point * span + c_in % lanes
    b_start = c_out // lanes * (plan.plane * span) + point * span
    corner = (point * k.args["c_in"] + c_in) * k.args["c_out"] + c_out
    places = [corner + k.args["c_out"] * i + j * lanes for i in range(plan.rows) for j in range(plan.columns)]

    def a(_: int, block: Number, inner: int, i: int) -> Value:
        return c.at(inputs, a_start + block * (DEPTH * lanes) + (inner * lanes + i), I32)

    def b(_: int, block: Number, inner: int, j: int) -> Value:
        return c.at(outputs, b_start + block * (DEPTH * lanes) + (j * plan.plane * span + inner * lanes), I32)

    values = [c.vector_at(sums, place) for place in places]
    k.add_product(values, plan.tiles // plan.pair // DEPTH, DEPTH, a, b)
    for place, value in zip(places, values, strict=True):
        c.put_vector(value, sums, place)


def generate_weight_transform(plan: Plan, layout: Layout) -> ir.Module:
    """G w. An item is one channel of the input, or a pair.

    x: the weights, float32 (c_out, c_in, 27).
    weight: words (c_out / wide, points, c_in, wide); where they are bfloat16, pairs of c_in lie side by side.
    """
    k = Program(plan, layout)
    c, args, G = k.code, k.args, [axis.G for axis in plan.axes]

    def weights(c_in: Number, c_out: Number) -> Element:
        start, stride = (c_out * args["c_in"] + c_in) * 27, args["c_in"] * 27
        return functools.cache(lambda i, j, m: c.strided(args["x"], start + ((3 * i + j) * 3 + m), stride))

    with k.items() as item, c.loop(args["c_out"], plan.lanes) as c_out:
        made = [transformed(c, G, weights(item * plan.pair + i, c_out)) for i in range(plan.pair)]
        for point, values in enumerate(zip(*made, strict=True)):
            row = (c_out // plan.wide * plan.points + point) * (args["c_in"] // plan.pair) + item
            c.put_vector(c.pack(values), args["weight"], row * plan.wide + c_out % plan.wide)
    return k.module


def generate_weight_gradient_transform(plan: Plan, layout: Layout) -> ir.Module:
    """The weight gradient, Gt applied to the sums of `generate_weight_gradient`. An item is one channel of the input.

    x: float32 (points, c_in, c_out). y: float32 (c_out, c_in, 27).
    """
    k = Program(plan, layout)
    c, args, Gt = k.code, k.args, [axis.Gt for axis in plan.axes]
    size = args["c_in"] * args["c_out"]  # of a point
    with k.items() as c_in, c.loop(args["c_out"], plan.lanes) as c_out:
        here, start = c_in * args["c_out"] + c_out, (c_out * args["c_in"] + c_in) * 27
        sums = functools.cache(lambda *index, here=here: c.vector_at(args["x"], here + size * plan.point(*index)))
        for index, value in enumerate(transformed(c, Gt, sums)):
            c.put_strided(value, args["y"], start + index, args["c_in"] * 27)
    return k.module
