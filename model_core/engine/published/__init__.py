"""The language of the published MolmoAct checkpoints, as a grammar for the engine."""
