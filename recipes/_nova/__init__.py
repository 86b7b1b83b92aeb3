"""What is behind `recipes.nova`: config, network, call, training step; folders and pipeline."""
