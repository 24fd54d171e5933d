"""The audit record: its format and its reader."""
