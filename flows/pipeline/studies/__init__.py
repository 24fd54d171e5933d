"""Comparisons of many policies over finished evaluations, and of the variants of a recipe."""
