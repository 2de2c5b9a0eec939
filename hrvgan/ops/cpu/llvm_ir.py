"""Builder of LLVM IR (numbers, loops, vectors of channels in memory, linear combinations) and of a kernel's frame."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from llvmlite import ir

from hrvgan.ops.cpu.jit import Layout


class BFloat(ir.Type):
    """LLVM's type bfloat, which llvmlite lacks."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


Value = ir.Value
I16, I32, I64 = (ir.IntType(bits) for bits in (16, 32, 64))
F32, BF16, POINTER = ir.FloatType(), BFloat(), ir.PointerType()


class Number:
    """An index or a count in a 64-bit register, with Python's operators."""

    def __init__(self, code: "Code", value: Value):
        self.code, self.value = code, value

    def _apply(self, operation: Callable[[Value, Value], Value], other: "Index") -> "Number":
        return Number(self.code, operation(self.value, word(other)))

    def __add__(self, other: "Index") -> "Number":
        return self._apply(self.code.add, other)

    def __sub__(self, other: "Index") -> "Number":
        return self._apply(self.code.sub, other)

    def __mul__(self, other: "Index") -> "Number":
        return self._apply(self.code.mul, other)

    def __floordiv__(self, other: "Index") -> "Number":
        return self._apply(self.code.udiv, other)

    def __mod__(self, other: "Index") -> "Number":
        return self._apply(self.code.urem, other)

    def __lt__(self, other: "Index") -> Value:
        return self.code.icmp_signed("<", self.value, word(other))

    def equals(self, other: "Index") -> Value:
        return self.code.icmp_signed("==", self.value, word(other))


Index = Number | int


def word(v: Index) -> Value:
    return ir.Constant(I64, v) if isinstance(v, int) else v.value


class Code(ir.IRBuilder):
    """With `half`, numbers in memory are bfloat16; in registers they are float32, `lanes` to a vector."""

    def __init__(self, block: ir.Block, lanes: int, half: bool):
        super().__init__(block)
        self.lanes, self.half = lanes, half
        self.element = I16 if half else F32
        self.floats = self.vector(F32)

    def vector(self, kind: ir.Type) -> ir.VectorType:
        return ir.VectorType(kind, self.lanes)

    def constant(self, kind: ir.Type, value: float) -> ir.Constant:
        return ir.Constant(self.vector(kind), [value] * self.lanes)

    @contextmanager
    def loop(
        self, stop: Index, step: int = 1, start: Index = 0, carried: list[Value] | None = None
    ) -> Iterator[Number]:
        """for i in range(start, stop, step). Vectors that it works on in registers are `carried`: within a round the
        list holds those of the round before and takes the new ones, and after the loop it holds the last."""
        carried = [] if carried is None else carried
        initial, before = [word(start), *carried], self.block
        head, body, end = (self.append_basic_block() for _ in range(3))
        self.branch(head)
        self.position_at_end(head)
        phis = [self.phi(value.type) for value in initial]
        i, carried[:] = Number(self, phis[0]), phis[1:]
        self.cbranch(i < stop, body, end)
        self.position_at_end(body)
        yield i
        for phi, first, then in zip(phis, initial, [(i + step).value, *carried], strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(then, self.block)
        self.branch(head)
        self.position_at_end(end)
        carried[:] = phis[1:]

    def least(self, a: Number, b: Index) -> Number:
        return Number(self, self.select(a < b, a.value, word(b)))

    def at(self, array: Value, index: Index, kind: ir.Type) -> Value:
        return self.gep(array, [word(index)], source_etype=kind)

    def floats_at(self, pointer: Value) -> Value:
        return self.load(pointer, typ=self.floats, align=4)

    def vector_at(self, array: Value, index: Index) -> Value:
        return self.floats_at(self.at(array, index, F32))

    def put_vector(self, value: Value, array: Value, index: Index) -> None:
        """Stores a vector of any words of 4 bytes."""
        self.store(value, self.at(array, index, F32), align=4)

    def strided(self, array: Value, start: Number, stride: Number) -> Value:
        """Loads a vector of float32 numbers that lie `stride` apart."""
        found = ir.Constant(self.floats, ir.Undefined)
        for lane in range(self.lanes):
            value = self.load(self.at(array, start + stride * lane, F32), typ=F32)
            found = self.insert_element(found, value, ir.Constant(I32, lane))
        return found

    def put_strided(self, value: Value, array: Value, start: Number, stride: Number) -> None:
        for lane in range(self.lanes):
            one = self.extract_element(value, ir.Constant(I32, lane))
            self.store(one, self.at(array, start + stride * lane, F32))

    def channels(self, pointer: Value) -> Value:
        """Loads a vector of numbers at `pointer`, as float32."""
        if not self.half:
            return self.floats_at(pointer)
        upper = self.load(pointer, typ=self.vector(I16), align=2)
        words = self.shl(self.zext(upper, self.vector(I32)), self.constant(I32, 16))
        return self.bitcast(words, self.floats)

    def put_channels(self, value: Value, pointer: Value) -> None:
        if self.half:
            self.store(self.fptrunc(value, self.vector(BF16)), pointer, align=2)
        else:
            self.store(value, pointer, align=4)

    def pack(self, values: Sequence[Value]) -> Value:
        """A vector as it is, or two as bfloat16 pairs, lane by lane: the first in the lower half of a word."""
        if len(values) == 1:
            return values[0]
        halves = [self.bitcast(self.fptrunc(value, self.vector(BF16)), self.vector(I16)) for value in values]
        low, high = (self.zext(half, self.vector(I32)) for half in halves)
        return self.or_(low, self.shl(high, self.constant(I32, 16)))

    def spread(self, value: Value) -> Value:
        """A vector with `value` in every lane."""
        undefined = ir.Constant(self.vector(value.type), ir.Undefined)
        one = self.insert_element(undefined, value, ir.Constant(I32, 0))
        return self.shuffle_vector(one, one, self.constant(I32, 0))

    def combine(self, row: Sequence[float], values: Sequence[Value]) -> Value:
        """sum of row[i] * values[i], with one multiplication for each absolute value of a coefficient but 1."""
        total = None
        for size in sorted({abs(f) for f in row if f}):
            plus, minus = ([v for v, f in zip(values, row, strict=True) if f == size * sign] for sign in (1, -1))
            part = functools.reduce(self.fadd, plus) if plus else self.fneg(minus.pop())
            part = functools.reduce(self.fsub, minus, part)
            part = part if size == 1 else self.fmul(part, self.constant(F32, size))
            total = part if total is None else self.fadd(total, part)
        return total


class Arguments(dict[str, Value | Number]):
    """A kernel's arguments by name: pointers to its tensors, and counts."""

    def __missing__(self, name: str) -> Value:
        raise KeyError(f"the kernel is launched without the argument {name!r}; known: {', '.join(self)}")


class Program:
    """A kernel for `plan`: a function `run` of a module, which all threads call with the same argument array."""

    def __init__(self, plan: NamedTuple, layout: Layout):
        self.plan, self.names, self.module = plan, layout.names, ir.Module()
        run = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [POINTER]), "run")
        self.words = run.args[0]
        self.code = c = Code(run.append_basic_block(), plan.lanes, plan.half)
        self.args = Arguments({name: c.load(self.place(name), typ=POINTER) for name in layout.pointers})
        self.args |= {name: Number(c, c.load(self.place(name), typ=I64)) for name in layout.numbers}
        self.fma = self.declare(f"llvm.fma.v{plan.lanes}f32", c.floats, [c.floats] * 3)

    def declare(self, name: str, result: ir.Type, parameters: Sequence[ir.Type]) -> ir.Function:
        """Declares an intrinsic function of LLVM."""
        return ir.Function(self.module, ir.FunctionType(result, parameters), name)

    def place(self, name: str) -> Value:
        return self.code.at(self.words, self.names.index(name), I64)

    def increment(self, name: str) -> Number:
        before = self.code.atomic_rmw("add", self.place(name), ir.Constant(I64, 1), "monotonic")
        return Number(self.code, before)

    @contextmanager
    def items(self) -> Iterator[Number]:
        """The loop over the items that no other thread has taken. It ends the function."""
        c = self.code
        head, body, end = (c.append_basic_block() for _ in range(3))
        c.branch(head)
        c.position_at_end(head)
        item = self.increment("item")
        c.cbranch(item < self.args["items"], body, end)
        c.position_at_end(body)
        yield item
        c.branch(head)
        c.position_at_end(end)
        c.ret_void()
