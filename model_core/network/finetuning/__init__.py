"""Fine-tuning of a published checkpoint: adapters, trained token rows and the loss of written answers."""
