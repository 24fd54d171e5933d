"""Depth and pointing annotators behind one interface, one model a file."""
