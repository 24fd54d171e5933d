"""A policy that passed is released: registered, packaged, exported, or proposed for retraining."""
