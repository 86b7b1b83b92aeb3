"""What a generation is asked for, and what its loops over frames and sets call."""

from contar.generation.graphs import Graphs
from contar.generation.monitor import Cancelled, Monitor, Progress
from contar.generation.plan import GenerationPlan
from contar.generation.sets import fill
from contar.generation.speed import fast_changes

__all__ = ["Cancelled", "GenerationPlan", "Graphs", "Monitor", "Progress", "fast_changes", "fill"]
