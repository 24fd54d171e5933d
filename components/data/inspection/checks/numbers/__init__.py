"""Rules of numbers: range, unit and meaning of state and action within a set, resolution, limits, jumps."""
