"""What can be done, once each: plain functions, and one file for every outside system."""
