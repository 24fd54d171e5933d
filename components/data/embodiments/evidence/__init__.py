"""What recorded numbers tell of an embodiment: modes, units and the gripper, each with its evidence or left open."""
