"""Tests and intervals with which policies are compared: pure functions of numbers, in numpy and the standard library only."""
