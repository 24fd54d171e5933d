"""Commands that run a recipe, show recipes, and read finished runs."""
