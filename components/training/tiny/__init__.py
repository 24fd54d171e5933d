"""Frozen samples become training batches of the tiny model, of one embodiment or of several that share the network."""
