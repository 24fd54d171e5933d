"""The chained audit log of a cell: written, indexed, retained, followed live."""
