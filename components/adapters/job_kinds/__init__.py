"""The kinds of objects that a job of a cluster can be, how one becomes the other, and what a cluster lacks for them."""
