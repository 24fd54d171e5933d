"""Folders in the published layout that were adopted: what was chosen for them, what they must hold, and how they are opened."""
