"""Noise mathematics, no networks: the noising process of training, samplers as tables."""

from contar.diffusion.config import SchedulerConfig, load_scheduler
from contar.diffusion.iddpm import iddpm_table
from contar.diffusion.process import NoiseProcess
from contar.diffusion.sampler import SamplerTable
from contar.diffusion.variance import variance_bound

__all__ = [
    "NoiseProcess",
    "SamplerTable",
    "SchedulerConfig",
    "iddpm_table",
    "load_scheduler",
    "variance_bound",
]
