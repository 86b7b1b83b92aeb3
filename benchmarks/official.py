"""The official NOVA, from a folder with its code, as a function beside ours.

The code is github.com/baaivision/NOVA; nothing of it is part of contar.
"""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from contar.ordering import set_sizes
from recipes import nova

CONFIG = Path(__file__).parents[1] / "tests/goldens/full_size/nova-d48w1024-osp480-mixer24.json"
Generate = Callable[..., torch.Tensor]


def official_nova(folder: Path, ours: nova.Nova, *, tiny: bool) -> Generate:
    """Return the official model's generation, with the weights, dtype and device of ours."""
    sys.path.insert(0, str(folder))
    transformers = importlib.import_module("diffnext.models.transformers.transformer_nova")
    schedulers = importlib.import_module("diffnext.schedulers.scheduling_cfm")
    config: dict[str, Any] = json.loads(CONFIG.read_text())["config"]
    if tiny:
        config = tiny_config(transformers)
    model: Any = transformers.NOVATransformer3DModel(**config)
    model.load_state_dict(ours.official_state_dict())
    model = torch.nn.Module.to(model, ours.device, ours.dtype).eval()
    model.sample_scheduler = schedulers.FlowMatchEulerDiscreteScheduler()

    def generate(
        text: torch.Tensor, plan: nova.GenerationPlan, generator: torch.Generator
    ) -> torch.Tensor:
        count = len(text)
        empty = model.text_embed.weight[: text.shape[1]].expand(count, -1, -1)
        tokens = config["image_base_size"][0] * config["image_base_size"][1]
        inputs = {
            "prompt": torch.cat([text, empty.to(text.dtype)]),
            "batch_size": count,
            "motion_flow": [5] * count,
            "guidance_scale": plan.guidance.scale,
            "num_preds": list(set_sizes(tokens, plan.sets)),
            "num_diffusion_steps": plan.diffusion_steps,
            "max_latent_length": plan.frames,
            "generator": generator,
            "tqdm1": False,
            "latents": [],
        }
        with torch.no_grad():
            return model(inputs)["x"]

    return generate


def tiny_config(transformers: Any) -> dict[str, Any]:
    """Register towers and a head of 2 layers, and return the config of a model of them."""
    if not transformers.VIDEO_ENCODERS.has("tiny"):
        transformers.VIDEO_ENCODERS.register("tiny", depth=2, embed_dim=64, num_heads=2)(
            transformers.video_encoder
        )
        transformers.IMAGE_ENCODERS.register("tiny", depth=4, embed_dim=64, num_heads=2)(
            transformers.image_encoder
        )
        transformers.IMAGE_DECODERS.register("tiny", depth=2, embed_dim=64)(
            transformers.image_decoder
        )
    return {
        "image_dim": 4, "image_size": [128, 128], "image_stride": 8, "text_token_dim": 32,
        "text_token_len": 8, "rotary_pos_embed": False, "video_base_size": [3, 4, 4],
        "image_base_size": [8, 8], "video_mixer_rank": 4, "arch": ["tiny", "tiny", "tiny"],
    }  # fmt: skip


TINY = nova.NovaConfig(
    temporal=nova.Tower(2, 64, 2), encoder=nova.Tower(2, 64, 2), decoder=nova.Tower(2, 64, 2),
    head_depth=2, head_width=64, text_width=32, text_length=8, latent=(16, 16), frames=3,
    adapter=4,
)  # fmt: skip
