"""Commands for images of the web with questions and answers."""
