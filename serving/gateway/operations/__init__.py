"""What operators set and see: limits, tokens, metrics, the state of the service."""
