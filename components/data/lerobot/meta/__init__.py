"""What a LeRobot v3.0 folder says of itself: the files of meta/, each read and checked."""
