"""Variants on one task at one budget: a run of each, a table and a plot."""

from recipes.compare.results import Run, plot, read_runs, table
from recipes.compare.run import Comparison, compare
from recipes.compare.tasks import IMAGES, TASKS, VIDEOS

__all__ = [
    "IMAGES",
    "TASKS",
    "VIDEOS",
    "Comparison",
    "Run",
    "compare",
    "plot",
    "read_runs",
    "table",
]
