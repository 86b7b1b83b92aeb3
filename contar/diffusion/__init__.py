"""Noise mathematics, no networks: the noising process of training, samplers as tables."""

from contar.diffusion.config import SchedulerConfig, load_scheduler
from contar.diffusion.iddpm import iddpm_table
from contar.diffusion.process import NoiseProcess
from contar.diffusion.sampler import SamplerTable
from contar.diffusion.straight import straight_table
from contar.diffusion.times import TimeLaw, check_law, draw_times
from contar.diffusion.variance import variance_bound

__all__ = [
    "NoiseProcess",
    "SamplerTable",
    "SchedulerConfig",
    "TimeLaw",
    "check_law",
    "draw_times",
    "iddpm_table",
    "load_scheduler",
    "straight_table",
    "variance_bound",
]
