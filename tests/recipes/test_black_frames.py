"""What is not finite becomes no pixel, and what None means has a length that comes back."""

import importlib
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from contar.tokenizers import VAETokenizer
from recipes import nova
from recipes._nova.pixels import show
from recipes._nova.request import default_values
from recipes.variants.digit_pixels import CANVAS, DigitPixels

diffusers: Any = importlib.import_module("diffusers")  # its names come lazily


class Broken:
    """A tokenizer whose decoder overflows."""

    def __init__(self, value: float) -> None:
        self.value = value

    def decode(self, latents: Tensor) -> Tensor:
        pixels = torch.zeros(1, 3, 2, 8, 8)
        pixels[0, 0, 1, 2, 3] = self.value
        return pixels


@pytest.mark.parametrize("kind", ["np", "pil", "pt"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_pixels_that_are_not_finite_are_an_error(kind: str, value: float, refuses: Any) -> None:
    with refuses("pixels", "NaN" if math.isnan(value) else "infinite"):
        show(torch.zeros(1, 4, 1, 1, 1), Broken(value), kind)  # type: ignore[arg-type]


def test_tokens_of_digits_that_are_not_finite_are_an_error(refuses: Any) -> None:
    digits = DigitPixels()
    made = torch.zeros(2, CANVAS.tokens, CANVAS.token_dim)
    assert digits.frames(made).shape == (2, 64, 64, 3)
    made[1, 0, 0] = math.nan
    with refuses("made", "NaN"):
        digits.frames(made)


def test_a_float16_pipeline_gives_the_frames_of_its_float32_autoencoder() -> None:
    pipe = nova.from_pretrained("moving-digits", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae: Any = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            norm_num_groups=4,
        )
    vae.decoder.conv_in.weight.data.mul_(1e5)  # activations beyond 65,504, as some released ones'
    sizes = nova.NovaConfig(**{**vars(pipe.transformer.sizes), "frames": 1})
    parts = {**pipe.components, "transformer": nova.build(sizes)}

    def frames(vae: Any) -> Any:
        made = nova.NovaPipeline(**{**parts, "vae": vae.eval()})
        made.set_progress_bar_config(disable=True)
        draws = torch.Generator().manual_seed(0)
        return made("a seven", num_inference_steps=2, num_diffusion_steps=2, generator=draws).frames

    half = frames(vae.half())
    assert half.std() > 1
    assert (half == frames(vae.float())).all()
    vae.register_to_config(force_upcast=False)
    with pytest.raises(ValueError, match=r"pixels: got '(NaN|infinite).*float32"):
        frames(vae.half())


@pytest.mark.parametrize(("frames", "expected"), [(1, 1), (2, 1), (3, 9), (5, 17), (16, 33)])
def test_the_default_length_comes_back(frames: int, expected: int) -> None:
    vae: Any = diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2
    )
    network = nova.build(_sizes(frames))
    values = default_values(network, VAETokenizer(vae), {})
    assert values["num_frames"] == expected


def _sizes(frames: int) -> nova.NovaConfig:
    tower = nova.Tower(1, 32, 1)
    return nova.NovaConfig(
        temporal=tower, encoder=tower, decoder=tower,
        head={"name": "flow", "width": 8, "depth": 1},
        text_width=8,
        text_length=4, latent=(8, 8), frames=frames,
    )  # fmt: skip
