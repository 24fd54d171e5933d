"""Commands for checkpoints, parity and exported releases."""
