"""Columns beside those that every LeRobot set has: where a person acted, and traces in the language columns."""
