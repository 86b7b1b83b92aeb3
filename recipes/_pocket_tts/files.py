"""Pocket TTS's files: our own folders, and those of transformers."""

import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from contar._building import build_for
from contar._defaults import fixed_defaults
from contar._errors import FLOATS, bad, check_choice
from contar._files import (
    WEIGHTS,
    check_finite,
    load_exactly,
    read_json,
    read_weights,
    weight_files,
)
from contar.cpu import speed_up
from contar.tokenizers import AudioTokenizer
from recipes._pocket_tts.config import MODEL_TYPE, PocketTTSConfig
from recipes._pocket_tts.keys import LEARNING, from_transformers
from recipes._pocket_tts.network import PocketTTS

THEIR_WEIGHTS = "model.safetensors"
CODEC_TYPE = "pocket_tts_audio_tokenizer"
_FREQUENCIES = re.compile(r"flow_head\.timestep_embeddings\.\d+\.freqs")
_UPDATES = "latent_stats_num_updates"  # how often their training has moved mean and std


@fixed_defaults()
def from_pretrained(path: str | Path, *, dtype: torch.dtype | None = None) -> PocketTTS:
    """Load a folder that `save_pretrained` wrote, or one of transformers.

    Of the latter config.json and model.safetensors are read, the file or its shards. Weights that
    are needed in training only are 0 where the folder has none of them, as in released ones.

    Args:
        path: of the folder.
        dtype: of the weights; None keeps the file's. Mean and std of the latents stay float32.

    Raises:
        FileNotFoundError: no such folder, or one without a config or weights.
        ValueError: a folder of another model, sizes that this model has not or of a model far
            larger than its weights, weights that are missing, unexpected, misshapen, NaN or
            infinite (all are listed), or a deviation of the latents that is not above 0.
    """
    folder = _folder(path)
    if dtype is not None:
        check_choice("dtype", dtype, FLOATS)
    config = read_json(folder / "config.json")
    if "sizes" in config:
        sizes = PocketTTSConfig.from_dict(config["sizes"])
        state = read_weights(folder)
        model = _empty(sizes, state)
    elif config.get("model_type") == MODEL_TYPE:
        sizes = PocketTTSConfig.from_transformers(config)
        state = _known(read_weights(folder, THEIR_WEIGHTS))
        model = _empty(sizes, state)
        if not any(name.startswith(LEARNING) for name in state):
            wanted = model.official_state_dict().items()
            state |= {n: torch.zeros(x.shape) for n, x in wanted if n.startswith(LEARNING)}
        heads = sizes.tower.heads
        state = from_transformers(state, model.state_dict(), heads, name=THEIR_WEIGHTS)
    else:
        got = config.get("model_type", config.get("_class_name"))
        raise bad("config.json", got, f"a folder of this recipe, or model_type {MODEL_TYPE!r}")
    kept = ("mean", "std")
    state = {n: x.float() if n in kept else x.to(dtype or x.dtype) for n, x in state.items()}
    std = state.get("std")
    if isinstance(std, Tensor) and not bool((std > 0).all()):
        raise bad("latent_std" if "sizes" not in config else "std", std.tolist(), "above 0")
    load_exactly(model, state, WEIGHTS)
    return speed_up(model.eval())


@fixed_defaults()
def load_codec(path: str | Path) -> AudioTokenizer:
    """Load the codec that makes sound of latents: a folder that transformers (5.24 on) wrote.

    Raises:
        FileNotFoundError: no such folder, or one without a config or weights.
        ImportError: a transformers that does not know it.
        ValueError: a folder of another model, or weights that are missing, unexpected, misshapen,
            NaN or infinite.
    """
    folder = _folder(path)
    kind = read_json(folder / "config.json").get("model_type")
    if kind != CODEC_TYPE:
        raise bad("config.json", kind, f"model_type {CODEC_TYPE!r}")
    weight_files(folder, THEIR_WEIGHTS)
    try:
        from transformers import PocketTTSAudioTokenizerModel
    except ImportError as error:
        raise ImportError("Pocket TTS's codec needs transformers 5.24 or later") from error
    loaded: Any = PocketTTSAudioTokenizerModel.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, output_loading_info=True
    )
    codec, found = loaded
    wrong = {kind: sorted(map(str, names)) for kind, names in found.items() if names}
    if wrong:
        raise bad(THEIR_WEIGHTS, wrong, "exactly the weights of the codec")
    check_finite(THEIR_WEIGHTS, codec.state_dict())
    return AudioTokenizer(codec.eval())


def _folder(path: Any) -> Path:
    if not isinstance(path, str | Path):
        raise bad("path", path, "the path of a folder")
    if not Path(path).is_dir():
        raise FileNotFoundError(f"path: got {str(path)!r}, allowed: a folder that exists")
    return Path(path)


def _empty(sizes: PocketTTSConfig, state: dict[str, Tensor]) -> PocketTTS:
    return build_for(state, lambda: PocketTTS(sizes), name="sizes", sizes=vars(sizes))


def _known(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return their weights without those that follow from the sizes, which are looked at.

    Raises:
        ValueError: other frequencies of the timesteps than this model's.
    """
    expected = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32) / 128)
    follow = {name: x for name, x in state.items() if _FREQUENCIES.fullmatch(name)}
    for name, x in follow.items():
        if x.shape != expected.shape or not torch.allclose(x.float(), expected, rtol=0.01):
            raise bad(name, f"{tuple(x.shape)}, others", "10000^(-i / 128) for i from 0 to 127")
    return {name: x for name, x in state.items() if name not in {*follow, _UPDATES}}
