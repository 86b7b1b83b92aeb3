"""Commands of `recipes.cli`."""
