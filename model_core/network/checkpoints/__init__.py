"""Checkpoint folders in the published layout, read piecewise and written atomically."""
