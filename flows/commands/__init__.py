"""The command line, one folder a group of commands."""
