"""In which loop frames and sets come out: set loop, frame loop, context frames, streaming."""

from contar.generation.frames import generate_frames
from contar.generation.graphs import Graphs
from contar.generation.monitor import Cancelled, Monitor, Progress
from contar.generation.passes import guided_passes
from contar.generation.plan import GenerationPlan
from contar.generation.sets import generate_sets
from contar.generation.speed import fast_changes

__all__ = [
    "Cancelled",
    "GenerationPlan",
    "Graphs",
    "Monitor",
    "Progress",
    "fast_changes",
    "generate_frames",
    "generate_sets",
    "guided_passes",
]
