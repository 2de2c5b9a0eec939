"""Optimisers by name against steps worked out by hand, learning rates over time, clipped gradients."""

import math

import pytest
import torch

from hrvgan.errors import InputError
from hrvgan.nn.optim import OPTIMIZERS, clip_norm, make_optimizer, scale_rates


def stepped(name: str, gradients: list[float], **options) -> float:
    """Where a weight of 1 is after steps with lr 0.1 along `gradients`."""
    weight = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    optimizer = make_optimizer(name, [weight], 0.1, **options)
    for gradient in gradients:
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    return weight.item()


def test_steps_by_hand():
    assert stepped("sgd", [2.0, -1.0]) == pytest.approx(1 - 0.1 * 2 + 0.1)
    assert stepped("sgd", [2.0, 2.0], momentum=0.5) == pytest.approx(1 - 0.1 * 2 - 0.1 * 3)
    # The first step of Adam is lr, whatever the gradient.
    assert stepped("adam", [4.0]) == pytest.approx(1 - 0.1)
    # betas (0, 0.99): the second gradient alone over the root of the (bias-corrected) mean of both squares.
    second = (0.99 * 0.01 * 16 + 0.01 * 4) / (1 - 0.99**2)
    assert stepped("adam", [4.0, 2.0]) == pytest.approx(0.9 - 0.1 * 2 / math.sqrt(second))
    assert stepped("rmsprop", [4.0]) == pytest.approx(0, abs=1e-7)  # 0.1 * 4 / sqrt(0.01 * 16)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_goes_downhill(name):
    assert stepped(name, [1.0, 1.0, 1.0]) < 1


def test_what_is_not_known_is_named():
    with pytest.raises(InputError, match="optimizer 'adamm' is not known; choose one of adam, sgd, rmsprop"):
        make_optimizer("adamm", [], 0.1)
    with pytest.raises(InputError, match="optimizer sgd takes no 'betas'; known: momentum, weight_decay"):
        make_optimizer("sgd", [torch.nn.Parameter(torch.zeros(1))], 0.1, betas=(0.0, 0.9))


def test_rates_are_scaled_from_the_first_also_after_a_resume():
    optimizer = make_optimizer("sgd", [torch.nn.Parameter(torch.zeros(1))], 0.4)
    for factor in (1.0, 0.75, 0.5):
        scale_rates(optimizer, factor)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2)
    again = make_optimizer("sgd", [torch.nn.Parameter(torch.zeros(1))], 0.4)
    again.load_state_dict(optimizer.state_dict())
    scale_rates(again, 0.25)
    assert again.param_groups[0]["lr"] == pytest.approx(0.1)


def test_clipping_keeps_the_direction():
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]  # norm 5
    assert clip_norm(gradients, 0.0).item() == pytest.approx(5)
    assert gradients[0].tolist() == [3, 0]
    assert clip_norm(gradients, 10.0).item() == pytest.approx(5)
    assert gradients[1].item() == pytest.approx(4)
    assert clip_norm(gradients, 1.0).item() == pytest.approx(5)
    assert gradients[0].tolist() == pytest.approx([0.6, 0.0], rel=1e-5)
    assert gradients[1].item() == pytest.approx(0.8, rel=1e-5)
