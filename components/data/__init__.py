"""Data is prepared: collect or ingest, validate, annotate, freeze."""
