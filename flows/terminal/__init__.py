"""What a person sees in the terminal: results, stage progress, the cells."""
