"""The fast networks compute what the plain ones of benchmarks/ compute: outputs and gradients, in float64."""

import pytest
import torch

from benchmarks.plain import PlainDiscriminator, PlainGenerator
from hrvgan.models.hrvgan import HRVGAN


def agree(fast, plain, inputs):
    """Outputs, and gradients of a random projection by inputs and weights, within 1e-9."""
    plain.load_state_dict(fast.state_dict())
    fast.load_state_dict(plain.state_dict())  # And back.
    outputs = [network(*inputs) for network in (fast, plain)]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-9)
    weight = torch.randn_like(outputs[0])
    leaves = [x for x in inputs if x.requires_grad]
    names = [name for name, _ in fast.named_parameters()]
    found = []
    for network, output in zip((fast, plain), outputs, strict=True):
        parameters = dict(network.named_parameters())
        found.append(
            torch.autograd.grad((output * weight).sum(), leaves + [parameters[name] for name in names])
        )
    for ours, theirs in zip(*found, strict=True):
        scale = max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9 * scale)


@pytest.mark.parametrize(
    ("size", "temporal", "width"), [(8, "paper", 0.2), (32, "ancestor", 0.1), (64, "paper", 0.1)]
)
def test_fast_and_plain_networks_are_the_same_function(size, temporal, width):
    torch.manual_seed(0)
    gan = HRVGAN(3, size, temporal=temporal, width=width).double()
    z = torch.randn(2, 128, dtype=torch.float64, requires_grad=True)
    c = torch.tensor([0, 2])
    agree(gan.G, PlainGenerator(3, size, temporal, width).double(), (z, c))
    x = torch.randn(2, 3, gan.num_frames, size, size, dtype=torch.float64, requires_grad=True)
    agree(gan.D, PlainDiscriminator(3, size, temporal, width).double(), (x, c))
