"""The fleet of robots: the agent on the computer of each cell, which takes releases in, and the controller, which proposes them."""
