"""How a token is drawn, given its condition z."""

from contar.heads.diffusion_mlp import DiffusionMLP

__all__ = ["DiffusionMLP"]
