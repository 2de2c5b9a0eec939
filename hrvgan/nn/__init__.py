"""What the models share: their contract, layers, losses, optimizers."""
