"""Edits of data sets as small documents: what is selected, split, trimmed, relabelled, merged or repaired; nothing is changed in place."""
