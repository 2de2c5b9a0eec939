"""Extraction in float32 and nothing less: an id that says float32 must not stand for TF32 on another GPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32(device: str | torch.device) -> Iterator[None]:
    """Matrix products and convolutions in float32 for the time of the block, without TF32, bfloat16 or autocast."""
    backends = torch.backends
    places = backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "ieee"
        with torch.autocast(torch.device(device).type, enabled=False):
            yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision
