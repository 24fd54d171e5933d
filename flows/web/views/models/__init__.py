"""The pages of models: versions and their cards, lineage, runs and studies side by side."""
