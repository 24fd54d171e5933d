"""The table that decides which version of a model is champion: compare-and-set by a fencing number that only grows."""
