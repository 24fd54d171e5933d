"""The one port to a model: what policies, benchmarks and replays ask of a checkpoint, whichever language it answers in."""
