"""The robot's side, without torch: ask, execute, hold on doubt, record."""
