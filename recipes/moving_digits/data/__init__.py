"""Clips of handwritten digits that move, with captions."""
