"""The labelling engine of a Ray cluster: rows on shared storage, decoded on CPUs, labelled by actors, kept in files that a resume reads."""
