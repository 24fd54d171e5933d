"""Images of the web with questions and answers about them: read from files of public layouts, checked, listed, and found again."""
