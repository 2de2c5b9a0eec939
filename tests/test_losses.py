"""Objectives and penalties against numbers worked out by hand."""

import math

import pytest
import torch

from hrvgan.nn.losses import OBJECTIVES, gradient_penalty, mode_seeking, objective_pair, zero_centred_penalty

ZERO = torch.zeros(4)


@pytest.mark.parametrize(
    ("name", "d", "g"),
    [
        ("logistic", 2 * math.log(2), math.log(2)),  # -log sigmoid(0), for real and for fake
        ("minimax", 2 * math.log(2), -math.log(2)),
        ("bce", 2 * math.log(2), math.log(2)),
        ("wasserstein", 0.0, 0.0),
        ("hinge", 2.0, 0.0),
        ("relativistic", math.log(2), math.log(2)),
    ],
)
def test_undecided_discriminator(name, d, g):
    loss_d, loss_g = OBJECTIVES[name]
    assert loss_d(ZERO, ZERO).item() == pytest.approx(d)
    assert loss_g(ZERO, ZERO).item() == pytest.approx(g)


@pytest.mark.parametrize(
    ("name", "d", "g"),
    [
        # real logits 2, fake logits -1: softplus(-2) + softplus(-1); softplus(1)
        ("logistic", 0.1269280 + 0.3132617, 1.3132617),
        ("minimax", 0.1269280 + 0.3132617, -0.3132617),
        ("bce", 0.1269280 + 0.3132617, 1.3132617),
        ("wasserstein", -3.0, 1.0),
        ("hinge", 0.0, 1.0),
        ("relativistic", 0.0485874, 3.0485874),  # softplus(-3), softplus(3)
    ],
)
def test_known_logits(name, d, g):
    loss_d, loss_g = OBJECTIVES[name]
    assert loss_d(ZERO + 2, ZERO - 1).item() == pytest.approx(d, abs=1e-6)
    assert loss_g(ZERO - 1, ZERO + 2).item() == pytest.approx(g, abs=1e-6)


def test_bce_of_the_paper_with_its_constants():
    loss_d, loss_g = objective_pair("bce", k=0.5, lambda1=2.0, lambda2=3.0)
    # softplus(-(2 - 0.5)) = 0.2014133, softplus(-1 - 0.5) = 0.2014133, softplus(0.5 + 1) = 1.7014133
    assert loss_d(ZERO + 2, ZERO - 1).item() == pytest.approx(5 * 0.2014133, abs=1e-6)
    assert loss_g(ZERO - 1).item() == pytest.approx(2 * 1.7014133, abs=1e-6)


def linear(x, c):
    """D(x) = 3 x_0 + 4 x_1 + ..., whose gradient is (3, 4, 0, ...) everywhere: norm 5."""
    weight = torch.zeros(x[0].numel())
    weight[0], weight[1] = 3, 4
    return x.flatten(1) @ weight


def test_r1_of_a_linear_discriminator_is_its_squared_slope():
    real = torch.randn(4, 3, 2, 2, 2).requires_grad_()
    assert zero_centred_penalty(linear(real, None), real).item() == pytest.approx(25.0)


def test_gradient_penalty_of_a_linear_discriminator():
    real, fake = torch.randn(2, 4, 3, 2, 2, 2)
    assert gradient_penalty(linear, real, fake, None).item() == pytest.approx((5 - 1) ** 2)


def test_gradient_penalty_is_taken_all_the_way_between_real_and_fake():
    """D(x) = |x|^2 / 2 has the slope |x|: 4 u at the part u of the way from 0 to a clip of norm 4."""
    real, fake = torch.zeros(20_000, 3, 1, 2, 2), torch.full((20_000, 3, 1, 2, 2), 4 / math.sqrt(12))
    found = gradient_penalty(lambda x, c: x.square().flatten(1).sum(1) / 2, real, fake, None)
    assert found.item() == pytest.approx(16 / 3 - 4 + 1, rel=0.05)  # E (4 u - 1)^2; 1 at real, 9 at fake.


def test_mode_seeking_by_hand():
    z = torch.tensor([[0.0, 0.0], [2.0, 4.0]])  # 3 apart
    fake = torch.stack([torch.zeros(3, 2, 2, 2), torch.full((3, 2, 2, 2), 0.5)])
    assert mode_seeking(fake, z).item() == pytest.approx(3 / 0.501)
    assert mode_seeking(fake[:1].repeat(2, 1, 1, 1, 1), z).item() == pytest.approx(3 / 0.001)


def test_penalties_reach_the_weights():
    weight = torch.ones(24, requires_grad=True)
    real = torch.randn(4, 3, 2, 2, 2).requires_grad_()
    zero_centred_penalty((real.flatten(1) @ weight).tanh(), real).backward()
    assert weight.grad.abs().sum() > 0
