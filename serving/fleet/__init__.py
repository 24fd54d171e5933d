"""The fleet on our side of the line: the agent that updates a robot's computer, and the controller that proposes versions to cells."""
