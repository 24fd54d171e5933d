"""Traces drawn into images, pixel for pixel as the published programs draw them."""
