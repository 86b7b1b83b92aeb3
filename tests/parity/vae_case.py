"""The Open-Sora-Plan VAE's goldens: moments, scaled means, and pixels decoded from the recorded."""

from typing import Any

import numpy as np
import torch
from nova_case import STEP, Errors, relative_error, weights_by_rule

from contar.tokenizers import OpenSoraVAE, VAETokenizer


def check_vae(
    description: dict[str, Any],
    case: dict[str, Any],
    arrays: dict[str, np.ndarray],
    device: str = "cpu",
) -> Errors:
    vae = OpenSoraVAE(**description["config"]).eval()
    vae.load_state_dict(weights_by_rule(description["parameters"]))
    torch.nn.Module.to(vae, device)
    tokenizer = VAETokenizer(vae)

    def clip(name: str) -> torch.Tensor:  # a picture is a clip of one frame
        tensor = torch.from_numpy(arrays[name]).to(device)
        return tensor if tensor.ndim == 5 else tensor[:, :, None]

    with torch.no_grad():
        moments = vae.encode(clip("pixels")).latent_dist.parameters  # type: ignore[union-attr]
    pairs = {
        "moments": moments,
        "scaled_mean": tokenizer.encode(clip("pixels")),
        "decoded": tokenizer.decode(clip("scaled_mean")),
    }
    return {name: (relative_error(ours, clip(name)), STEP) for name, ours in pairs.items()}
