"""Episodes for people: one table of all sets, recordings and audits, any frame of any episode by its number, signals on one time axis."""
