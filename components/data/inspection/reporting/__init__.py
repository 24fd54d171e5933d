"""What an inspection says: to a program, to a person, as a page, and as the passport of a set."""
