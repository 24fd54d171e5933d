"""Episodes in few large files: decoded once, versioned by appending, read in any order from this disk or over a network."""
