"""Episodes are inspected: the structure that rules need, the rules with their thresholds, and the identity of an episode."""
