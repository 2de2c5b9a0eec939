"""Parts that the models share: their contract, layers, losses, optimizers, augmentation, layer table, memory."""
