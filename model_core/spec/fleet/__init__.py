"""What the agents and controllers of a fleet exchange, and the signatures of it: documents and rules, no socket, no torch."""
