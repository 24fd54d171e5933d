"""The embodiment as a file that a person reads and signs: drafted from a data set, checked against one, ready for public robots."""
