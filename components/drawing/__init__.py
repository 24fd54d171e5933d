"""Charts and images that people look at."""
