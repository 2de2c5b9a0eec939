"""Parts of the Winograd kernels: transforms, pointers to the elements of a tile, and the product in registers."""

import itertools
from collections.abc import Callable, Iterator, Sequence

from llvmlite import ir

from hrvgan.ops.cpu.jit import Layout
from hrvgan.ops.cpu.llvm_ir import BF16, F32, I32, Index, Program, Value, number, vector
from hrvgan.ops.cpu.winograd_schemes import NUM_NEIGHBOURS, Matrix, Plan, ring_width

Put = Callable[[Value, Value, int, list[Value]], None]  # (channel, first tile, point, a vector for each tile)


class WinogradProgram(Program):
    def __init__(self, plan: Plan, layout: Layout):
        super().__init__(layout, plan.lanes, plan.half)
        self.plan = plan

    def transformed(
        self, matrices: Sequence[Matrix], value: Callable[[int, int, int], Value]
    ) -> Iterator[Value]:
        """The elements of `value` (D, H, W) after a matrix along each axis, in order; by planes: registers are few."""
        c, (along_d, along_h, along_w) = self.code, matrices
        height, width = len(along_h[0]), len(along_w[0])
        for row in along_d:
            seen, factors = zip(*((i, f) for i, f in enumerate(row) if f), strict=True)
            plane = [
                [c.combine(factors, [value(i, j, k) for i in seen]) for k in range(width)]
                for j in range(height)
            ]
            for row_h in along_h:
                line = [c.combine(row_h, column) for column in zip(*plane, strict=True)]
                yield from (c.combine(row_w, line) for row_w in along_w)


class TileProgram(WinogradProgram):
    """A kernel over tiles of x and y, which lie as (N, T, H, W, C)."""

    def __init__(self, plan: Plan, layout: Layout):
        super().__init__(plan, layout)
        c = self.code
        self.zeros = ir.GlobalVariable(self.module, vector(F32, plan.lanes), "zeros")
        self.zeros.initializer = ir.Constant(vector(F32, plan.lanes), None)
        self.zeros.global_constant = True
        self.multiply = self.declare_multiply()
        self.word = I32 if plan.half else F32
        self.counts = [self.args[name] for name in ("times", "heights", "widths")]
        self.x_sizes = [c.sum((n, axis.step)) for n, axis in zip(self.counts, plan.axes, strict=True)]
        self.y_sizes = [c.sum((n, axis.outputs)) for n, axis in zip(self.counts, plan.axes, strict=True)]
        self.thread = self.increment("thread")

    def declare_multiply(self) -> ir.Function:
        """The instruction a b + c in every lane: of float32, or of bfloat16 pairs."""
        lanes, sums = self.plan.lanes, vector(F32, self.plan.lanes)
        if self.plan.half:
            pairs = vector(BF16, 2 * lanes)
            return self.declare(f"llvm.x86.avx512bf16.dpbf16ps.{32 * lanes}", sums, [sums, pairs, pairs])
        return self.declare(f"llvm.fma.v{lanes}f32", sums, [sums] * 3)

    def coordinates(self, tile: Value) -> tuple[Value, ...]:
        """(n, d, h, w), counted in tiles."""
        c, found = self.code, []
        for count in reversed(self.counts):
            found.append(c.urem(tile, count))
            tile = c.udiv(tile, count)
        return (tile, *reversed(found))

    def neighbours(
        self, name: str, n: Value, corner: Sequence[Value], sizes: Sequence[Value], channels: Value, channel: Value
    ) -> Callable[[int, int, int], Value]:  # fmt: skip
        """Pointers into the tensor `name` of these sizes, by the distance from a corner along each axis."""
        c = self.code
        strides = [channels]  # the same for all tiles, so that LLVM computes their multiples once
        for size in reversed(sizes[1:]):
            strides.insert(0, c.mul(strides[0], size))
        pixel = n
        for place, size in zip(corner, sizes, strict=True):
            pixel = c.sum((pixel, size), place)
        start = c.at(self.args[name], c.sum((pixel, channels), channel), c.element)

        def pointer(*index: int) -> Value:
            away = c.sum(*((stride, i) for stride, i in zip(strides, index, strict=True)))
            return c.at(start, away, c.element)

        return pointer

    def outputs(self, tile: Value, channel: Value) -> Callable[[int, int, int], Value]:
        """Pointers to the tile's elements of y."""
        c, (n, *tile) = self.code, self.coordinates(tile)
        corner = [c.sum((t, axis.outputs)) for t, axis in zip(tile, self.plan.axes, strict=True)]
        return self.neighbours("y", n, corner, self.y_sizes, self.args["c_out"], channel)

    def outputs_seen(self, tile: Value, channel: Value, there: Value) -> Callable[[int, int, int], Value]:
        """The tile's elements of y: zeros unless `there`."""
        c, pointer = self.code, self.outputs(tile, channel)
        return lambda *index: c.channels(c.select(there, pointer(*index), self.zeros))

    def transform_inputs(
        self, matrices: Sequence[Matrix], first: Value, num_tiles: Value, all_tiles: Index, ring: Value, put: Put
    ) -> None:  # fmt: skip
        """Transforms x for `all_tiles` tiles from `first` on, two neighbours at a time, and has `put` store the
        results. Tiles after `num_tiles` see zeros.

        Along the width tiles overlap. A ring keeps the columns of x after the first two matrices for all tiles that see
        them.
        """
        c, (along_d, along_h, along_w), axis = self.code, matrices, self.plan.axes[2]
        lines, width, step = len(along_d) * len(along_h), ring_width(axis), NUM_NEIGHBOURS * axis.step

        def slot(place: Value, column: Index) -> Value:
            return c.sum((c.urem(c.sum(place, column), number(width)), lines * c.lanes))

        with c.loop(all_tiles, NUM_NEIGHBOURS) as tile:
            n, d, h, w = self.coordinates(c.sum(first, tile))
            place, there = c.sum((w, axis.step)), c.icmp_signed("<", tile, num_tiles)
            new_row = c.or_(c.icmp_signed("==", tile, number(0)), c.icmp_signed("==", w, number(0)))
            new = c.select(new_row, number(0), number(width - step))
            slots = [slot(place, column) for column in range(width)]
            with c.loop(self.args["c_in"], c.lanes) as channel:
                mine = c.at(ring, c.sum((channel, width * lines)), F32)
                with c.loop(width, start=new) as column:
                    start, seen = slot(place, column), self.column((n, d, h, w), column, channel, there)
                    for i, value in enumerate(self.transformed((along_d, along_h, ((1,),)), seen)):
                        c.put_vector(value, mine, c.sum(start, i * c.lanes))
                for i in range(lines):
                    line = [c.vector_at(mine, c.sum(start, i * c.lanes)) for start in slots]
                    for j, row in enumerate(along_w):
                        seen = [line[t * axis.step :][: len(row)] for t in range(NUM_NEIGHBOURS)]
                        put(channel, tile, i * len(along_w) + j, [c.combine(row, window) for window in seen])

    def column(
        self, tile: tuple[Value, ...], column: Value, channel: Value, there: Value
    ) -> Callable[[int, int, int], Value]:
        """One column of a tile's window of x: zeros outside of x, and everywhere unless `there`."""
        c, (n, *tile) = self.code, tile
        corner = [c.sum((t, axis.step), -1) for t, axis in zip(tile, self.plan.axes, strict=True)]
        corner[2] = c.sum(corner[2], column)
        inside = [
            [c.icmp_unsigned("<", c.sum(place, i), size) for i in range(4)]
            for place, size in zip(corner, self.x_sizes, strict=True)
        ]
        there = c.and_(there, inside[2][0])
        pointer = self.neighbours("x", n, corner, self.x_sizes, self.args["c_in"], channel)

        def value(i: int, j: int, _: int) -> Value:
            ok = c.and_(there, c.and_(inside[0][i], inside[1][j]))
            return c.channels(c.select(ok, pointer(i, j, 0), self.zeros))

        return value

    def product(
        self, blocks: Value, depth: int, initial: list[Value],
        a: Callable[[Value, int, int, int], Value], b: Callable[[Value, int, int, int], Value], points: int = 1,
    ) -> list[Value]:  # fmt: skip
        """initial + a b in registers for some points, as vectors of points, rows and columns. `a` and `b` point to the
        word of a row and the vector of a column at (point, block, inner); a block has `depth` inners."""
        c, columns = self.code, self.plan.columns
        words, operand = vector(self.word, c.lanes), self.multiply.args[1].type
        rows = len(initial) // columns // points

        def multiplied(total: Value, word: Value, across: Value) -> Value:
            if self.plan.half:
                return c.call(self.multiply, [total, c.bitcast(word, operand), c.bitcast(across, operand)])
            return c.call(self.multiply, [word, across, total])

        def add(block: Value, sums: list[Value]) -> list[Value]:
            sums = list(sums)
            for inner, point in itertools.product(range(depth), range(points)):
                across = [c.load(b(point, block, inner, j), typ=words, align=4) for j in range(columns)]
                for i in range(rows):
                    word = c.spread(c.load(a(point, block, inner, i), typ=self.word, align=4))
                    for j in range(columns):
                        place = (point * rows + i) * columns + j
                        sums[place] = multiplied(sums[place], word, across[j])
            return sums

        return c.repeat(blocks, initial, add)
