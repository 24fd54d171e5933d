"""Results on disk: content-addressed steps, file digests and the code version that is part of a cache key."""
