"""The layer table of a model, measured by running it once."""

import torch
from torch import nn

from hrvgan.models.base import VideoGAN


def layer_table(gan: VideoGAN) -> str:
    """One line a layer of G and D that has parameters or changes the shape: name, output shape without N, parameters.

    Runs one clip through both.
    """
    lines, handles = [], []
    for prefix, network in (("G", gan.G), ("D", gan.D)):
        for name, module in network.named_modules():
            if not list(module.children()):
                handles.append(module.register_forward_hook(recorder(f"{prefix}.{name}", lines)))
    gan.eval()
    with torch.no_grad():
        c = gan.cycle_labels(1)
        gan.D(gan.G(gan.latent(1, 0), c), c)
    for handle in handles:
        handle.remove()
    totals = [f"{name}: {num_parameters(network):,} parameters" for name, network in (("G", gan.G), ("D", gan.D))]
    return "\n".join(lines + totals)


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def recorder(name: str, lines: list[str]):
    def hook(module: nn.Module, inputs, output) -> None:
        count = num_parameters(module)
        if count or output.shape != inputs[0].shape:
            shape = " x ".join(map(str, output.shape[1:]))
            lines.append(f"{name:<22} {type(module).__name__:<14} {shape:<20} {count:>10,}")

    return hook
