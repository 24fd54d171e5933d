"""What may move, as pure functions: chunk scheduling, limits, the safety envelope, motion states."""
