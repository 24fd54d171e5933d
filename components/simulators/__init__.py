"""Simulators behind one port; each names the package and version that it was seen to work with."""
