"""Settings from the environment, and the services and child processes that they choose."""
