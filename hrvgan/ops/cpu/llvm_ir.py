"""Builder of LLVM IR (loops, vectors of channels in memory, linear combinations) and of a kernel's frame."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

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
Index = Value | int


def number(v: Index) -> Value:
    return ir.Constant(I64, v) if isinstance(v, int) else v


def vector(kind: ir.Type, lanes: int) -> ir.VectorType:
    return ir.VectorType(kind, lanes)


class Code(ir.IRBuilder):
    """With `half`, numbers in memory are bfloat16; in registers they are float32, `lanes` to a vector."""

    def __init__(self, block: ir.Block, lanes: int, half: bool):
        super().__init__(block)
        self.lanes, self.half = lanes, half
        self.element = I16 if half else F32

    @contextmanager
    def loop(self, stop: Index, step: int = 1, start: Index = 0) -> Iterator[Value]:
        """for i in range(start, stop, step)"""
        before = self.block
        head, body, end = (self.append_basic_block() for _ in range(3))
        self.branch(head)
        self.position_at_end(head)
        i = self.phi(I64)
        i.add_incoming(number(start), before)
        self.cbranch(self.icmp_signed("<", i, number(stop)), body, end)
        self.position_at_end(body)
        yield i
        i.add_incoming(self.add(i, number(step)), self.block)
        self.branch(head)
        self.position_at_end(end)

    def repeat(
        self, count: Value, initial: Sequence[Value], body: Callable[[Value, list], list]
    ) -> list[Value]:
        """A loop of `count` rounds, at least one, that carries values in registers: values = body(i, values)."""
        before, head, end = self.block, self.append_basic_block(), self.append_basic_block()
        self.branch(head)
        self.position_at_end(head)
        i, values = self.phi(I64), [self.phi(v.type) for v in initial]
        new = body(i, values)
        following = self.add(i, number(1))
        for phi, first, then in zip([i, *values], [number(0), *initial], [following, *new], strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(then, self.block)
        self.cbranch(self.icmp_signed("<", following, count), head, end)
        self.position_at_end(end)
        return new

    def sum(self, *terms: Index | tuple[Index, Index]) -> Value:
        """The sum of numbers and of products of two."""
        products = [
            self.mul(*map(number, term)) if isinstance(term, tuple) else number(term) for term in terms
        ]
        total = products[0]
        for product in products[1:]:
            total = self.add(total, product)
        return total

    def at(self, array: Value, index: Index, kind: ir.Type) -> Value:
        return self.gep(array, [number(index)], source_etype=kind)

    def least(self, a: Index, b: Index) -> Value:
        a, b = number(a), number(b)
        return self.select(self.icmp_signed("<", a, b), a, b)

    def vector_at(self, array: Value, index: Index) -> Value:
        return self.load(self.at(array, index, F32), typ=vector(F32, self.lanes), align=4)

    def put_vector(self, value: Value, array: Value, index: Index) -> None:
        """Stores a vector of any words of 4 bytes."""
        self.store(value, self.at(array, index, F32), align=4)

    def constant(self, kind: ir.Type, value: float) -> ir.Constant:
        return ir.Constant(vector(kind, self.lanes), [value] * self.lanes)

    def spread(self, word: Value) -> Value:
        """A vector with `word` in every lane."""
        one = self.insert_element(
            ir.Constant(vector(word.type, self.lanes), ir.Undefined), word, ir.Constant(I32, 0)
        )
        return self.shuffle_vector(one, one, self.constant(I32, 0))

    def channels(self, pointer: Value) -> Value:
        """Loads a vector of numbers at `pointer`, as float32."""
        if not self.half:
            return self.load(pointer, typ=vector(F32, self.lanes), align=4)
        upper = self.load(pointer, typ=vector(I16, self.lanes), align=2)
        word = self.shl(self.zext(upper, vector(I32, self.lanes)), self.constant(I32, 16))
        return self.bitcast(word, vector(F32, self.lanes))

    def put_channels(self, value: Value, pointer: Value) -> None:
        if self.half:
            self.store(self.fptrunc(value, vector(BF16, self.lanes)), pointer, align=2)
        else:
            self.store(value, pointer, align=4)

    def pairs(self, *values: Value) -> Value:
        """Packs two vectors to bfloat16 pairs, lane by lane: the first in the lower half of a word."""
        words, low = vector(I32, self.lanes), []
        for value in values:
            half = self.fptrunc(value, vector(BF16, self.lanes))
            low.append(self.zext(self.bitcast(half, vector(I16, self.lanes)), words))
        return self.or_(low[0], self.shl(low[1], self.constant(I32, 16)))

    @contextmanager
    def cases(self, which: Value, count: int) -> Iterator[Iterator[int]]:
        """A switch statement: `with code.cases(which, 3) as cases: for case in cases: ...`."""
        after = self.append_basic_block()
        switch = self.switch(which, after)

        def each() -> Iterator[int]:
            for case in range(count):
                block = self.append_basic_block()
                switch.add_case(number(case), block)
                self.position_at_end(block)
                yield case
                self.branch(after)

        yield each()
        self.position_at_end(after)

    def strided(self, array: Value, start: Value, stride: Value) -> Value:
        """Loads a vector of float32 numbers that lie `stride` apart."""
        found = ir.Constant(vector(F32, self.lanes), ir.Undefined)
        for lane in range(self.lanes):
            value = self.load(self.at(array, self.sum(start, (stride, lane)), F32), typ=F32)
            found = self.insert_element(found, value, ir.Constant(I32, lane))
        return found

    def put_strided(self, value: Value, array: Value, start: Value, stride: Value) -> None:
        for lane in range(self.lanes):
            one = self.extract_element(value, ir.Constant(I32, lane))
            self.store(one, self.at(array, self.sum(start, (stride, lane)), F32))

    def combine(self, row: Sequence[float], values: Sequence[Value]) -> Value:
        """sum of row[i] * values[i], with one multiplication for each absolute value of a coefficient but 1."""
        total = None
        for size in sorted({abs(f) for f in row if f}):
            plus, minus = (
                [v for v, f in zip(values, row, strict=True) if f == size * sign] for sign in (1, -1)
            )
            part = functools.reduce(self.fadd, plus) if plus else self.fneg(minus.pop())
            part = functools.reduce(self.fsub, minus, part)
            part = part if size == 1 else self.fmul(part, self.constant(F32, size))
            total = part if total is None else self.fadd(total, part)
        return total


class Arguments(dict[str, Value]):
    """A kernel's arguments by name."""

    def __missing__(self, name: str) -> Value:
        raise KeyError(f"the kernel is launched without the argument {name!r}; known: {', '.join(self)}")


class Program:
    """A kernel: a function `run` of a module, which all threads call with the same argument array."""

    def __init__(self, layout: Layout, lanes: int, half: bool):
        self.names, self.module = layout.names, ir.Module()
        run = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [POINTER]), "run")
        self.words = run.args[0]
        self.code = c = Code(run.append_basic_block(), lanes, half)
        self.args = Arguments({name: c.load(self.place(name), typ=POINTER) for name in layout.pointers})
        self.args |= {name: c.load(self.place(name), typ=I64) for name in layout.numbers}

    def declare(self, name: str, result: ir.Type, parameters: Sequence[ir.Type]) -> ir.Function:
        """Declares an intrinsic function of LLVM."""
        return ir.Function(self.module, ir.FunctionType(result, parameters), name)

    def place(self, name: str) -> Value:
        return self.code.at(self.words, self.names.index(name), I64)

    def increment(self, name: str) -> Value:
        return self.code.atomic_rmw("add", self.place(name), number(1), "monotonic")

    @contextmanager
    def items(self) -> Iterator[Value]:
        """The loop over the items that no other thread has taken. It ends the function."""
        c = self.code
        head, body, end = (c.append_basic_block() for _ in range(3))
        c.branch(head)
        c.position_at_end(head)
        item = self.increment("item")
        c.cbranch(c.icmp_signed("<", item, self.args["items"]), body, end)
        c.position_at_end(body)
        yield item
        c.branch(head)
        c.position_at_end(end)
        c.ret_void()
