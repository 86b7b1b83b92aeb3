"""What `recipes.nova` and its pipeline are made of: configs, names, folders, inputs, training."""
