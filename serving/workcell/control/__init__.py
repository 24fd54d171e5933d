"""The control loop of a cell: one step, its exchange with the policy, stops and operator input."""
