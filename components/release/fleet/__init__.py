"""Releases for robots: what one holds, how it is made, checked and published."""
