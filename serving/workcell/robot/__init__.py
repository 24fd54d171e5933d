"""The robot interface, its drivers and the recorder of episodes."""
