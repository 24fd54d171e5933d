"""The model core in numpy and pure torch, without any platform; importing it, or `spec`, does not import torch."""
