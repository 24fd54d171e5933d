"""The compact language of small models: one id a value, one fixed slot a meaning."""
