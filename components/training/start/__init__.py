"""The checkpoint that a training goes on from: what it must share with the new training, and which of its rows are carried over."""
