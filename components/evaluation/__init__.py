"""Policies are evaluated: the image-swap check, rollouts, statistics and the gate."""
