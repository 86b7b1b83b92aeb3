"""Which parts make a NOVA pipeline, and what None means in its calls."""

from collections.abc import Mapping
from typing import Any

from contar._errors import bad, check_choice, check_count, check_instance, check_number, plain
from contar.tokenizers import Tokenizer, VAETokenizer, longest_clip
from recipes._nova.motion import MOTION, UNSET
from recipes._nova.network import Nova

# What the released models are made for; a model of fewer latent frames makes as many as it has.
RELEASED_DEFAULTS = {
    "num_frames": 33, "num_inference_steps": 64, "num_diffusion_steps": 25, "guidance_scale": 5.0,
    "guidance_renorm": 1.0, **MOTION,
}  # fmt: skip


def default_values(
    network: Nova, tokenizer: Tokenizer, stored: Mapping[str, float]
) -> dict[str, Any]:
    """Return what None means for a network and its tokenizer, `stored` first.

    Raises:
        ValueError: an unknown name or a value outside its range in `stored`, or no mapping.
    """
    check_instance("defaults", stored, Mapping)
    sizes = network.sizes
    tokens = sizes.latent[0] * sizes.latent[1] // sizes.patch**2
    values: dict[str, Any] = dict(RELEASED_DEFAULTS)
    most = min(values["num_frames"], tokenizer.pixel_frames(sizes.frames))
    values["num_frames"] = longest_clip(tokenizer, most)
    values["num_inference_steps"] = min(values["num_inference_steps"], tokens)
    stored = {name: plain(value) for name, value in stored.items()}
    for name, value in stored.items():
        check_choice("defaults", name, tuple(values))
        if name.startswith("num_"):
            check_count(f"defaults[{name!r}]", value)
        elif name != "motion_flow" or value != UNSET:
            check_number(f"defaults[{name!r}]", value, 0)
    return {**values, **stored}


def check_parts(
    transformer: Any, vae: Any, scheduler: Any, text_encoder: Any, tokenizer: Any
) -> VAETokenizer:
    """Return the tokenizer of pixels, if the parts fit one another.

    Raises:
        ValueError: as `NovaPipeline` says.
    """
    check_instance("transformer", transformer, Nova)
    if not isinstance(getattr(scheduler, "config", None), Mapping):
        raise bad("scheduler", type(scheduler).__name__, "a scheduler of diffusers")
    sizes, pixels = transformer.sizes, VAETokenizer(vae)
    if pixels.channels != sizes.channels:
        raise bad("vae", f"{pixels.channels} channels", f"the network's {sizes.channels}")
    if (text_encoder is None) != (tokenizer is None):
        raise bad("tokenizer", type(tokenizer).__name__, "one with a text_encoder, none without")
    width = getattr(getattr(text_encoder, "config", None), "hidden_size", None)
    if getattr(getattr(text_encoder, "config", None), "is_encoder_decoder", False):
        raise bad("text_encoder", type(text_encoder).__name__, "an encoder or a decoder alone")
    if text_encoder is not None and width != sizes.text_width:
        raise bad("text_encoder", f"width {width}", f"the network's {sizes.text_width}")
    return pixels
