"""Releases on a robot's computer: what is offered, fetched, verified, kept in two slots, and served."""
