"""How networks of the published layout are trained: which ones a recipe may name, their examples, their rates, their loss."""
