"""A model of moving digits at work on prompts, and how it did."""
