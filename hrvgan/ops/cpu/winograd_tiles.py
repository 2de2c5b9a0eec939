"""Parts of the Winograd kernels: transforms, pointers to the elements of a tile, and the product in registers."""

import itertools
from collections.abc import Callable, Iterator, Sequence

from llvmlite import ir

from hrvgan.ops.cpu.jit import Layout
from hrvgan.ops.cpu.llvm_ir import BF16, F32, I32, I64, Code, Index, Number, Program, Value
from hrvgan.ops.cpu.winograd_schemes import NUM_NEIGHBOURS, SIZES, Matrix, Plan

Element = Callable[[int, int, int], Value]
Put = Callable[[Number, Number, int, list[Value]], None]  # (channel, first tile, point, a vector a tile)


def transformed(c: Code, matrices: Sequence[Matrix], value: Element) -> Iterator[Value]:
    """The elements of `value` (D, H, W) after a matrix along each axis, in order; by planes: registers are few."""
    along_d, along_h, along_w = matrices
    height, width = len(along_h[0]), len(along_w[0])
    for row in along_d:
        seen, factors = zip(*((i, f) for i, f in enumerate(row) if f), strict=True)
        plane = [[c.combine(factors, [value(i, j, k) for i in seen]) for k in range(width)] for j in range(height)]
        for row_h in along_h:
            line = [c.combine(row_h, column) for column in zip(*plane, strict=True)]
            yield from (c.combine(row_w, line) for row_w in along_w)


class TileProgram(Program):
    """A kernel over tiles of x and y, which lie as (N, T, H, W, C)."""

    def __init__(self, plan: Plan, layout: Layout):
        super().__init__(plan, layout)
        c, lanes = self.code, plan.lanes
        self.zeros = ir.GlobalVariable(self.module, c.floats, "zeros")
        self.zeros.initializer = ir.Constant(c.floats, None)
        self.zeros.global_constant = True
        self.pairs, self.word = ir.VectorType(BF16, 2 * lanes), I32 if plan.half else F32
        if plan.half:
            name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * lanes}"
            self.dot = self.declare(name, c.floats, [c.floats, self.pairs, self.pairs])
        self.counts = [self.args[name] for name in SIZES]
        self.x_sizes = [n * axis.step for n, axis in zip(self.counts, plan.axes, strict=True)]
        self.y_sizes = [n * axis.outputs for n, axis in zip(self.counts, plan.axes, strict=True)]
        self.scratch = c.at(self.args["scratch"], self.increment("thread") * self.args["scratch_size"], I32)

    def multiply_add(self, total: Value, a: Value, b: Value) -> Value:
        """total + a b in every lane: of float32, or of bfloat16 pairs."""
        c = self.code
        if self.plan.half:
            return c.call(self.dot, [total, c.bitcast(a, self.pairs), c.bitcast(b, self.pairs)])
        return c.call(self.fma, [a, b, total])

    def coordinates(self, tile: Number) -> tuple[Number, ...]:
        """(n, d, h, w), counted in tiles."""
        found = []
        for count in reversed(self.counts):
            found.append(tile % count)
            tile = tile // count
        return (tile, *reversed(found))

    def neighbours(
        self, name: str, n: Number, corner: list[Number], sizes: list[Number], channels: Number, channel: Number
    ) -> Element:  # fmt: skip
        """Pointers into the tensor `name` of these sizes, by the distance from a corner along each axis."""
        c = self.code
        strides = [channels]  # the same for all tiles, so that LLVM computes their multiples once
        for size in reversed(sizes[1:]):
            strides.insert(0, strides[0] * size)
        pixel = n
        for place, size in zip(corner, sizes, strict=True):
            pixel = pixel * size + place
        start = c.at(self.args[name], pixel * channels + channel, c.element)

        def pointer(*index: int) -> Value:
            d, h, w = (stride * i for stride, i in zip(strides, index, strict=True))
            return c.at(start, d + h + w, c.element)

        return pointer

    def outputs(self, tile: Number, channel: Number) -> Element:
        """Pointers to the tile's elements of y."""
        n, *place = self.coordinates(tile)
        corner = [t * axis.outputs for t, axis in zip(place, self.plan.axes, strict=True)]
        return self.neighbours("y", n, corner, self.y_sizes, self.args["c_out"], channel)

    def outputs_seen(self, tile: Number, channel: Number, there: Value) -> Element:
        """The tile's elements of y: zeros unless `there`."""
        c, pointer = self.code, self.outputs(tile, channel)
        return lambda *index: c.channels(c.select(there, pointer(*index), self.zeros))

    def inputs_seen(self, tile: tuple[Number, ...], column: Number, channel: Number, there: Value) -> Element:
        """One column of a tile's window of x: zeros outside of x, and everywhere unless `there`."""
        c, (n, *place) = self.code, tile
        corner = [t * axis.step - 1 for t, axis in zip(place, self.plan.axes, strict=True)]
        corner[2] = corner[2] + column
        inside = [
            [c.icmp_unsigned("<", (start + i).value, size.value) for i in range(4)]
            for start, size in zip(corner, self.x_sizes, strict=True)
        ]
        there = c.and_(there, inside[2][0])
        pointer = self.neighbours("x", n, corner, self.x_sizes, self.args["c_in"], channel)

        def value(i: int, j: int, _: int) -> Value:
            ok = c.and_(there, c.and_(inside[0][i], inside[1][j]))
            return c.channels(c.select(ok, pointer(i, j, 0), self.zeros))

        return value

    def transform_inputs(
        self, matrices: Sequence[Matrix], first: Number, num_tiles: Number, all_tiles: Index, ring: Value, put: Put
    ) -> None:  # fmt: skip
        """Transforms x for `all_tiles` tiles from `first` on, two neighbours at a time, and has `put` store the
        results. Tiles after `num_tiles` see zeros.

        Along the width tiles overlap. A ring keeps the columns of x after the first two matrices for all tiles that see
        them.
        """
        c, (along_d, along_h, along_w), axis = self.code, matrices, self.plan.axes[2]
        lines, width, step = len(along_d) * len(along_h), axis.ring_width, NUM_NEIGHBOURS * axis.step
        with c.loop(all_tiles, NUM_NEIGHBOURS) as tile:
            n, d, h, w = self.coordinates(first + tile)
            place, there = w * axis.step, tile < num_tiles
            new_row = c.or_(tile.equals(0), w.equals(0))
            new = c.select(new_row, ir.Constant(I64, 0), ir.Constant(I64, width - step))
            slots = [(place + column) % width * (lines * c.lanes) for column in range(width)]
            with c.loop(self.args["c_in"], c.lanes) as channel:
                mine = c.at(ring, channel * (width * lines), F32)
                with c.loop(width, start=Number(c, new)) as column:
                    slot = (place + column) % width * (lines * c.lanes)
                    seen = self.inputs_seen((n, d, h, w), column, channel, there)
                    for i, value in enumerate(transformed(c, (along_d, along_h, ((1,),)), seen)):
                        c.put_vector(value, mine, slot + i * c.lanes)
                for i in range(lines):
                    line = [c.vector_at(mine, slot + i * c.lanes) for slot in slots]
                    for j, row in enumerate(along_w):
                        windows = [line[t * axis.step :][: len(row)] for t in range(NUM_NEIGHBOURS)]
                        put(channel, tile, i * len(along_w) + j, [c.combine(row, seen) for seen in windows])

    def add_product(
        self, sums: list[Value], blocks: Number, depth: int, a: Callable[..., Value], b: Callable[..., Value],
        points: int = 1,
    ) -> None:  # fmt: skip
        """sums += a b in registers for some points, as vectors of points, rows and columns. `a` and `b` point to the
        word of a row and the vector of a column at (point, block, inner); a block has `depth` inners."""
        c, columns, words = self.code, self.plan.columns, self.code.vector(self.word)
        rows = len(sums) // columns // points
        with c.loop(blocks, carried=sums) as block:
            for inner, point in itertools.product(range(depth), range(points)):
                across = [c.load(b(point, block, inner, j), typ=words, align=4) for j in range(columns)]
                for i in range(rows):
                    down = c.spread(c.load(a(point, block, inner, i), typ=self.word, align=4))
                    for j in range(columns):
                        place = (point * rows + i) * columns + j
                        sums[place] = self.multiply_add(sums[place], down, across[j])
