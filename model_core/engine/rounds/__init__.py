"""Decoding rounds: rows that are decoded together, in blocks or in parallel."""
