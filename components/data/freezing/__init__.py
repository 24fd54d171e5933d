"""From labelled episodes of one embodiment to its shards, its statistics and its contract."""
