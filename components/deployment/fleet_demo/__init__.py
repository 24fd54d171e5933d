"""A fleet on one machine: three releases, a controller, agents and simulated cells, two rollouts, and a proof from the audits."""
