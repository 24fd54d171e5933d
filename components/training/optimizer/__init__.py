"""What happens to gradients and weights in a step: the optimiser's groups, and the clipping of gradients, whole or by part."""
