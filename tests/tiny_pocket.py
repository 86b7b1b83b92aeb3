"""A Pocket TTS so small that every law of it is quick, and what it says."""

import torch

from recipes import pocket_tts

HEAD = {**pocket_tts.official_head(16, 2), "weighting": 8}
SIZES = {
    "tower": pocket_tts.Tower(2, 16, 2),
    "head": HEAD,
    "hidden": 24,
    "vocabulary": 20,
    "token_dim": 4,
}


def tiny_pocket(**options):
    torch.manual_seed(0)
    config = pocket_tts.PocketTTSConfig(**{**SIZES, "voice_mark": 19, **options})
    model = pocket_tts.build(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        model.mean.normal_()
        model.std.uniform_(0.5, 2)
    return model


TEXTS = [[3, 1, 4, 1, 5], [9, 2]]
VOICES = [torch.linspace(-1, 1, 12).view(3, 4), torch.linspace(1, 2, 8).view(2, 4)]
