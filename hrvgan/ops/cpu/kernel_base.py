"""What all kernels are made of: what they are told, and which thread does which item."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from llvmlite import ir

from hrvgan.ops.cpu.launch import Fields
from hrvgan.ops.cpu.llvm_ir import I64, POINTER, Code, number

Value = ir.Value


class Program:
    """A function `run` of a module, which all threads call with the same fields."""

    def __init__(self, fields: Fields, lanes: int, half: bool):
        self.names, self.module = fields.names, ir.Module()
        run = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [POINTER]), "run")
        self.fields = run.args[0]
        self.code = c = Code(run.append_basic_block(), lanes, half)
        self.told = {name: c.load(self.place(name), typ=POINTER) for name in fields.pointers}
        self.told |= {name: c.load(self.place(name), typ=I64) for name in fields.numbers}

    def declare(self, name: str, result: ir.Type, given: Sequence[ir.Type]) -> ir.Function:
        """A function of LLVM's."""
        return ir.Function(self.module, ir.FunctionType(result, given), name)

    def place(self, name: str) -> Value:
        return self.code.at(self.fields, self.names.index(name), I64)

    def count_up(self, name: str) -> Value:
        return self.code.atomic_rmw("add", self.place(name), number(1), "monotonic")

    @contextmanager
    def items(self) -> Iterator[Value]:
        """The body is done for each item that no other thread has taken. It ends the function."""
        c = self.code
        head, body, end = (c.append_basic_block() for _ in range(3))
        c.branch(head)
        c.position_at_end(head)
        item = self.count_up("item")
        c.cbranch(c.icmp_signed("<", item, self.told["items"]), body, end)
        c.position_at_end(body)
        yield item
        c.branch(head)
        c.position_at_end(end)
        c.ret_void()
