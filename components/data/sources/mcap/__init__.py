"""Robot logs in MCAP files as episodes: a mapping file says which topic is which camera, state and action, and how time is resampled."""
