"""What a kernel is compiled for, and what it is told when it runs."""

from typing import NamedTuple

from hrvgan.ops.cpu.launch import Fields

# Height and width of a frame; frames in a row to which one gain and one shift belong.
FIELDS = Fields(("x", "y", "g", "kept", "gain", "shift", "by_gain", "by_shift"), ("height", "width", "span"))


class Plan(NamedTuple):
    lanes: int  # channels in a vector of float32
    half: bool  # bfloat16 in memory
    channels: int
    slope: float = 0.0  # of LeakyReLU
    time: int = 1  # frames of x to one of their means
