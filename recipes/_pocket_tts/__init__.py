"""What is behind `recipes.pocket_tts`: config, network, call; transformers' folders."""
