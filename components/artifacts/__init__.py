"""Results on disk: content-addressed steps, their digests, the code version that is part of a cache key; and empty databases."""
