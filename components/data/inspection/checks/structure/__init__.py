"""Rules of structure: files, counts, rows and features fit together."""
