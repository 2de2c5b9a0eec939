"""HRVGAN against the plain version of benchmarks/: equal outputs and gradients in float64, and as few operations."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.plain import PlainDiscriminator, PlainGenerator
from benchmarks.training_step import Iteration
from hrvgan.models.hrvgan import HRVGAN
from hrvgan.nn.losses import zero_centred_penalty
from hrvgan.ops import cpu


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
        found.append(torch.autograd.grad((output * weight).sum(), leaves + [parameters[name] for name in names]))
    for ours, theirs in zip(*found, strict=True):
        scale = max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9 * scale)


@pytest.mark.parametrize(("size", "temporal", "width"), [(8, "paper", 0.2), (32, "ancestor", 0.1), (64, "paper", 0.1)])
def test_fast_and_plain_networks_are_the_same_function(size, temporal, width):
    torch.manual_seed(0)
    gan = HRVGAN(3, size, temporal=temporal, width=width).double()
    z = torch.randn(2, 128, dtype=torch.float64, requires_grad=True)
    c = torch.tensor([0, 2])
    agree(gan.G, PlainGenerator(3, size, temporal, width).double(), (z, c))
    x = torch.randn(2, 3, gan.num_frames, size, size, dtype=torch.float64, requires_grad=True)
    agree(gan.D, PlainDiscriminator(3, size, temporal, width).double(), (x, c))


def penalty_gradients(network, x, c):
    """The gradients w.r.t. the weights of R1 plus a loss of the logits, as D is trained."""
    x = x.detach().requires_grad_()
    logits = network(x, c)
    loss = zero_centred_penalty(logits, x) + F.softplus(-logits).mean()
    names, parameters = zip(*network.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def test_the_penalty_has_the_same_gradients():
    torch.manual_seed(0)
    gan = HRVGAN(3, 32, temporal="ancestor", width=0.1).double()
    plain = PlainDiscriminator(3, 32, "ancestor", 0.1).double()
    plain.load_state_dict(gan.D.state_dict())
    x, c = torch.randn(2, 3, gan.num_frames, 32, 32, dtype=torch.float64), torch.tensor([0, 2])
    ours, theirs = penalty_gradients(gan.D, x, c), penalty_gradients(plain, x, c)
    for name, expected in theirs.items():
        scale = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=1e-9 * scale)


class Operations(TorchDispatchMode):
    """Counts what reaches torch's dispatcher, views included."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_the_reference_path_makes_no_more_operations_than_the_plain_version(monkeypatch):
    """A training step of D with both penalties, of G and of the average; on a GPU each operation is a launch."""
    monkeypatch.setattr(cpu, "enabled", False)
    counts = {}
    for plain in (False, True):
        step = Iteration(32, plain=plain)
        step.batch.real, step.batch.c = step.batch.real[:2], step.batch.c[:2]
        for phase in step.phases:
            phase.optimizer.param_groups[0]["foreach"] = True
        with Operations() as operations:
            step()
        counts[plain] = operations.count
    assert counts[True] > 1000
    assert counts[False] <= 1.1 * counts[True]


@pytest.mark.parametrize(("backend", "kernels"), [("eager", False), ("aot_eager", False), ("eager", True)])
def test_networks_compile(backend, kernels, monkeypatch):
    """Forward and first gradient, with torch.compile's backends that need no compiler. It traces the
    reference, whatever runs without it."""
    monkeypatch.setattr(cpu, "enabled", kernels and cpu.enabled)
    torch.manual_seed(0)
    gan = HRVGAN(3, 16, width=0.1)
    c = torch.tensor([0, 2])
    x = torch.randn(2, 3, gan.num_frames, 16, 16)
    for network, inputs in ((gan.G, torch.randn(2, 128)), (gan.D, x)):
        torch._dynamo.reset()
        compiled = torch.compile(network, backend=backend)
        results = []
        for function in (network, compiled):
            leaf = inputs.clone().requires_grad_()
            y = function(leaf, c)
            gradients = torch.autograd.grad(y.square().sum(), [leaf, *network.parameters()])
            results.append([y, *gradients])
        for ours, theirs in zip(*results, strict=True):
            difference = (ours - theirs).norm() / theirs.norm().clamp(min=1e-3)
            assert difference < (1e-3 if kernels else 1e-6)  # Kernels round differently.


def penalty_at_a_norm_of_one(network, x, c):
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network(x, c).sum(), x, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def penalty_at_zero(network, x, c):
    x = x.detach().requires_grad_()
    return zero_centred_penalty(network(x, c), x)


@pytest.mark.parametrize("penalty", [penalty_at_zero, penalty_at_a_norm_of_one])
def test_a_penalty_in_bfloat16_is_nearer_to_float64_than_torchs_own(penalty):
    torch.manual_seed(0)
    gan = HRVGAN(3, 32, width=0.5)
    plain = PlainDiscriminator(3, 32, "paper", 0.5)
    plain.load_state_dict(gan.D.state_dict())
    x, c = torch.rand(4, 3, gan.num_frames, 32, 32) * 2 - 1, torch.tensor([0, 1, 2, 0])

    def gradients(network, half, dtype=torch.float32):
        network.to(dtype).zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            value = penalty(network, x.to(dtype), c)
        value.backward()
        return torch.cat([p.grad.double().flatten() for p in network.parameters() if p.grad is not None])

    ours, theirs = gradients(gan.D, half=True), gradients(plain, half=True)
    exact = gradients(gan.D, half=False, dtype=torch.float64)
    error = (ours - exact).norm() / exact.norm()
    assert error < 0.08
    assert error < (theirs - exact).norm() / exact.norm()
