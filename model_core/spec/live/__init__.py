"""What a running cell shows to people and takes from them, as files in one folder: its view, and their orders."""
