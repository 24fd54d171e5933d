"""What is measured of an episode and of a set: one frozen dataclass a family, without any threshold, and where measurements are kept."""
