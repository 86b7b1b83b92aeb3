"""What is behind `recipes.mar`: config, network, call, training step; folders."""
