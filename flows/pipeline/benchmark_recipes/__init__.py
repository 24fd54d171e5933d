"""Recipes whose tasks are those of a benchmark that an extra installs."""
