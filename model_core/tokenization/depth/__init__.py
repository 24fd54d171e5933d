"""Depth maps as tokens: the depth VQ-VAE, its files and its training."""
