"""Commands that train, and label, on a cluster."""
