"""Commands that measure the decoding engine."""
