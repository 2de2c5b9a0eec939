"""Parts that models share: contract, layers, losses, optimizers, augmentation, released models, cost."""
