"""Simulators whose initial states are a benchmark's own, and that tell how far an attempt came."""
