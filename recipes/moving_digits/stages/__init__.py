"""The road from handwriting to a pipeline: latents, two trainings of a network, a look."""

from recipes.moving_digits.stages.first_look import glance
from recipes.moving_digits.stages.latents import digits_latents, scored
from recipes.moving_digits.stages.recipe import MovingDigitsRecipe, run, smoke

__all__ = [
    "MovingDigitsRecipe",
    "digits_latents",
    "glance",
    "run",
    "scored",
    "smoke",
]
