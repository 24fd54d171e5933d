"""A release is deployed: the policy service, simulated cells, the probe and the replay of audits."""
