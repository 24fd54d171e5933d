"""MolmoAct's network: its vision backbone and decoder, its image processor and its checkpoints."""
