"""Simulated robots behind one interface; Meta-World is the first."""
