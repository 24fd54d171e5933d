"""The mind: numpy and pure torch, no platform. Importing this, or `spec`, wakes no torch."""
