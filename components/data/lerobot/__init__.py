"""The LeRobot v3.0 format on disk, read and written."""
