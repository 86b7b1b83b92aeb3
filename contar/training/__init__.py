"""How a training run goes: losses of a step, parts kept from training, the loop and its saves."""

from typing import TYPE_CHECKING

from contar._lazy import lazily
from contar.training.caching import Clip, check_samples, encode_clips, fingerprint, read_clips
from contar.training.clip_shards import (
    encode_shards,
    failed_clips,
    join_cache,
    plan_cache,
    shards_left,
)
from contar.training.config import RunConfig
from contar.training.curves import require_matplotlib, save_curves
from contar.training.distilling import distill_head
from contar.training.distributed import one_run, processes
from contar.training.draws import Draws, draw_step
from contar.training.freezing import freeze
from contar.training.latents import Latents
from contar.training.loop import train
from contar.training.losses import FrameLosses, frame_losses
from contar.training.order import batch_indices
from contar.training.saves import check_own

if TYPE_CHECKING:
    from contar.training.autoencoder import VaeStage, train_vae
else:  # which import diffusers
    __getattr__ = lazily(__name__, {"autoencoder": ("VaeStage", "train_vae")})

__all__ = [
    "Clip",
    "Draws",
    "FrameLosses",
    "Latents",
    "RunConfig",
    "VaeStage",
    "batch_indices",
    "check_own",
    "check_samples",
    "distill_head",
    "draw_step",
    "encode_clips",
    "encode_shards",
    "failed_clips",
    "fingerprint",
    "frame_losses",
    "freeze",
    "join_cache",
    "one_run",
    "plan_cache",
    "processes",
    "read_clips",
    "require_matplotlib",
    "save_curves",
    "shards_left",
    "train",
    "train_vae",
]
