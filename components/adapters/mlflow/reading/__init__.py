"""Runs and model versions as MLflow recorded them, read without loading MLflow, which takes seconds."""
