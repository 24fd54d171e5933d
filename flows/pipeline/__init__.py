"""The order of work: the stages, the loop, retraining and what a run leaves behind."""
