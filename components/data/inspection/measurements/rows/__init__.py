"""What is measured of the rows of episodes, over many of them at once: arrays hold one row after the other, so no pass is made for each."""
