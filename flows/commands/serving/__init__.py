"""Commands that serve, probe and run a cell on a policy."""
