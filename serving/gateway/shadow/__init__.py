"""A candidate policy that answers live observations in a process of its own, without any way to a robot, and how it differs."""
