"""Optimisers by name, learning rate schedules, gradient clipping."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from hrvgan.errors import InputError


def adam(parameters, lr: float, *, betas=(0.0, 0.99), eps: float = 1e-8, weight_decay: float = 0.0):
    """betas (0, 0.99) are those of Karras et al. 2018 and of the network that the paper's tables descend from."""
    return torch.optim.Adam(parameters, lr, tuple(betas), eps, weight_decay, foreach=True)


def sgd(parameters, lr: float, *, momentum: float = 0.0, weight_decay: float = 0.0):
    """Algorithm 1 of the paper: mini-batch stochastic gradient descent, plain unless `momentum` says otherwise."""
    return torch.optim.SGD(parameters, lr, momentum, weight_decay=weight_decay, foreach=True)


def rmsprop(parameters, lr: float, *, alpha: float = 0.99, eps: float = 1e-8):
    """RMSprop, for Wasserstein GANs with clipped weights (Arjovsky et al. 2017)."""
    return torch.optim.RMSprop(parameters, lr, alpha, eps, foreach=True)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": adam, "sgd": sgd, "rmsprop": rmsprop}


def make_optimizer(name: str, parameters: Iterable, lr: float, **options) -> torch.optim.Optimizer:
    """The optimiser `name` on `parameters`; `options` are the keywords of its function above.

    Raises InputError for a name or an option that is not known.
    """
    if name not in OPTIMIZERS:
        raise InputError(f"optimizer {name!r} is not known; choose one of {', '.join(OPTIMIZERS)}")
    known = OPTIMIZERS[name].__kwdefaults__
    for key in options:
        if key not in known:
            raise InputError(f"optimizer {name} takes no {key!r}; known: {', '.join(known)}")
    return OPTIMIZERS[name](parameters, lr, **options)


def scale_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every learning rate to `factor` times what it was at first."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def clip_norm(gradients: list[Tensor], most: float) -> Tensor:
    """The norm of all `gradients` together, which are then scaled down, in place, to `most` where it is larger; 0 only
    measures."""
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
    if most:
        torch._foreach_mul_(gradients, (most / (norm + 1e-6)).clamp(max=1.0))
    return norm
