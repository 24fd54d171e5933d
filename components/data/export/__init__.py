"""Data sets in the formats of other tools, written whole or not at all, and compared with what they were made from."""
