"""What went wrong in episodes: moments that a person should look at, how alike they are, and how long they wait."""
