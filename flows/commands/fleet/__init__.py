"""Commands of the fleet: keys, releases, and the repository that robots read."""
