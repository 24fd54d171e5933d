"""A LeRobot folder as it is, sound or not: everything that can be read, and a fact about everything that cannot."""
