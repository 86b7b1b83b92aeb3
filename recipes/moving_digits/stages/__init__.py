"""The road from handwriting to a pipeline: latents, two trainings of a network, a look."""
