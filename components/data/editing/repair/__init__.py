"""Rebuilds what a crashed recorder left of a LeRobot folder, as far as the evidence allows, and says what it gave up."""
