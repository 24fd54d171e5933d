"""Commands that list, verify and replay audits."""
