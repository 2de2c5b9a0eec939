"""Objectives as pairs of functions of logits (N,), and penalties on the gradient of D.

What G minimises sees its fakes, and the real clips only where the objective compares pairs (`PAIRED`).
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from hrvgan.ops import batch_rng, gradients_by_inputs_alone


def logistic_d(real: Tensor, fake: Tensor) -> Tensor:
    """-log sigmoid(D(x)) - log(1 - sigmoid(D(G(z)))) (HRVGAN eq. 1-3; Goodfellow et al. 2014). Logits (N,)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def logistic_g(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """The non-saturating form: -log sigmoid(D(G(z))), which has a gradient where G still loses."""
    return F.softplus(-fake).mean()


def minimax_g(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """log(1 - sigmoid(D(G(z)))), as eq. 3 has it: without a gradient where D is sure."""
    return -F.softplus(fake).mean()


def wasserstein_d(real: Tensor, fake: Tensor) -> Tensor:
    """E D(G(z)) - E D(x) (HRVGAN eq. 5; Arjovsky et al. 2017)."""
    return fake.mean() - real.mean()


def wasserstein_g(fake: Tensor, real: Tensor | None = None) -> Tensor:
    return -fake.mean()


def hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    """E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))) (Lim & Ye 2017)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def relativistic_d(real: Tensor, fake: Tensor) -> Tensor:
    """-log sigmoid(D(x) - D(G(z))), pair by pair (Jolicoeur-Martineau 2018; Huang et al. 2024, eq. 2)."""
    return F.softplus(fake - real).mean()


def relativistic_g(fake: Tensor, real: Tensor) -> Tensor:
    """The other way round: every fake is held against a real clip, so dropping a mode costs something."""
    return F.softplus(real - fake).mean()


def bce_d(real: Tensor, fake: Tensor, k: float = 0.0, lambda1: float = 1.0, lambda2: float = 1.0) -> Tensor:
    """lambda1 BCE(D(x) - k, 1) + lambda2 BCE(D(G(z)) - k, 0) (HRVGAN eq. 13-14). The paper sums over clips; this is
    the mean, so that the learning rate does not depend on the batch size."""
    return lambda1 * F.softplus(k - real).mean() + lambda2 * F.softplus(fake - k).mean()


def bce_g(fake: Tensor, real: Tensor | None = None, k: float = 0.0, lambda1: float = 1.0) -> Tensor:
    """lambda1 BCE(D(G(z)) - k, 1) (HRVGAN eq. 12)."""
    return lambda1 * F.softplus(k - fake).mean()


OBJECTIVES = {
    "logistic": (logistic_d, logistic_g),
    "minimax": (logistic_d, minimax_g),
    "bce": (bce_d, bce_g),
    "wasserstein": (wasserstein_d, wasserstein_g),
    "hinge": (hinge_d, wasserstein_g),
    "relativistic": (relativistic_d, relativistic_g),
}
PAIRED = {"relativistic"}


def objective_pair(
    name: str, k: float = 0.0, lambda1: float = 1.0, lambda2: float = 1.0
) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """The losses of D and G; k, lambda1 and lambda2 are those of "bce" (HRVGAN eq. 12-14)."""
    loss_d, loss_g = OBJECTIVES[name]
    if name == "bce":
        return partial(loss_d, k=k, lambda1=lambda1, lambda2=lambda2), partial(loss_g, k=k, lambda1=lambda1)
    return loss_d, loss_g


def zero_centred_penalty(logits: Tensor, clips: Tensor) -> Tensor:
    """E ||grad_x D(x)||^2 on real clips (R1) or generated ones (R2) (Mescheder et al. 2018, eq. 9 and 10, without
    their gamma / 2). `logits` (N,) are those of `clips`, which require a gradient."""
    with gradients_by_inputs_alone():
        (gradient,) = torch.autograd.grad(logits.sum(), clips, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def mode_seeking(fake: Tensor, z: Tensor) -> Tensor:
    """Mean |z1 - z2| over mean |G(z1) - G(z2)| for neighbours 0 and 1, 2 and 3, ...: large where G draws nearly the
    same clip from another z. `fake` (N, C, T, H, W), `z` (N, ...), N 2 or more; of an odd N the last is left out.

    Mao et al. 2019 maximise the inverse (eq. 5); their code minimises 1 / (it + 1e-5), one ratio of means over the
    batch. Here each pair has its own ratio, behind which no other hides, and 1e-3 is added to the clips' distance.
    """
    n = len(z) // 2 * 2
    apart = (fake[0:n:2] - fake[1:n:2]).abs().flatten(1).mean(1)
    return ((z[0:n:2] - z[1:n:2]).abs().flatten(1).mean(1) / (apart + 1e-3)).mean()


def gradient_penalty(D, real: Tensor, fake: Tensor, c: Tensor) -> Tensor:
    """E (||grad_x D(x)|| - 1)^2 at points between real and fake (HRVGAN eq. 6; Gulrajani et al. 2017, eq. 3)."""
    mix = batch_rng.rand(len(real), 1, 1, 1, 1, like=real)
    between = torch.lerp(real, fake, mix).requires_grad_()
    with gradients_by_inputs_alone():
        (gradient,) = torch.autograd.grad(D(between, c).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()
