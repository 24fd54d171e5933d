"""Data sets as robot logs: one MCAP file an episode, in messages of ROS 2, with the mapping and embodiment files that read them back."""
