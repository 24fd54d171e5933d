"""A process of its own that stops the drive when the cell process dies."""
