"""What `recipes.mar` is made of: configs, names, folders."""
