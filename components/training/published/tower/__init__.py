"""The vision tower where it is not trained: features of a view computed once, and kept on disk."""
