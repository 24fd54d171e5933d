"""Sessions of cells as pure rules: handshake, access, checks, steering, replies."""
