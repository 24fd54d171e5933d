"""The arena: many policies on the same cases, their ratings, and which of them were shown to differ."""
