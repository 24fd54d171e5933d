"""The network: MolmoAct's eyes and decoder, its images, its checkpoints. Import the modules, not this package."""
