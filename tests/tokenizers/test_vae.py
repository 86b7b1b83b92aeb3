"""Tokenizers over autoencoders: frame counts, scale, tiles; the goldens are in tests/parity."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from small_vaes import KINDS, make, opensora
from torch import Tensor

from contar.tokenizers import Tokenizer, VAETokenizer
from contar.tokenizers._tiles import tiled, tiles

VIDEO = [kind for kind in KINDS if kind != "image"]


def clip(frames: int, height: int, width: int, batch: int = 1) -> Tensor:
    draws = torch.Generator().manual_seed(frames)
    return torch.rand(batch, 3, frames, height, width, generator=draws) * 2 - 1


def side_of(tokenizer: Tokenizer) -> int:
    return max(16, 2 * tokenizer.space_stride)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_survives_encode_and_decode_in_shape(kind: str) -> None:
    tokenizer = VAETokenizer(make(kind))
    assert isinstance(tokenizer, Tokenizer)
    side, stride = side_of(tokenizer), tokenizer.space_stride
    pixels = clip(tokenizer.pixel_frames(3), side, 2 * side, batch=2)
    latents = tokenizer.encode(pixels)
    assert latents.shape == (2, tokenizer.channels, 3, side // stride, 2 * side // stride)
    assert tokenizer.decode(latents).shape == pixels.shape


@pytest.mark.parametrize("kind", KINDS)
def test_latents_are_shifted_and_scaled_as_the_config_says(kind: str) -> None:
    vae = make(kind)
    tokenizer = VAETokenizer(vae)
    side = side_of(tokenizer)
    pixels = clip(tokenizer.pixel_frames(3), side, side)
    latents = tokenizer.encode(pixels)
    # diffusers' own formulas, by pipeline.
    if kind == "image":
        plain = vae.encode(pixels[0].transpose(0, 1)).latent_dist.mode().transpose(0, 1)[None]
        expected = (plain - 0.25) * 0.5
    else:
        if kind == "allegro":  # its own encode knows nothing but tiles
            vae.kernel, vae.stride = (pixels.shape[2], side, side), (pixels.shape[2], side, side)
            vae.enable_tiling()
        plain = vae.encode(pixels).latent_dist.mode()
        if kind in ("wan", "mochi"):
            mean, std = (
                torch.tensor(vae.config[key]).view(1, -1, 1, 1, 1)
                for key in ("latents_mean", "latents_std")
            )
            expected = (plain - mean) * vae.config.get("scaling_factor", 1.0) / std
        elif kind == "ltx":
            expected = (plain - 0.5) * 1.0 / 2.0
        else:
            expected = plain * vae.config.scaling_factor
    torch.testing.assert_close(latents, expected)


def test_allegros_clips_equal_its_own_tiles_where_one_tile_covers_them(refuses) -> None:
    vae = make("allegro")
    vae.kernel, vae.stride = (8, 16, 16), (8, 16, 16)
    pixels, tokenizer = clip(8, 16, 16), VAETokenizer(vae)
    latents = tokenizer.encode(pixels)
    decoded = tokenizer.decode(latents)
    vae.enable_tiling()
    plain = vae.encode(pixels).latent_dist.mode()
    torch.testing.assert_close(latents, plain * vae.config.scaling_factor)
    # Its own decode puts frames before channels.
    torch.testing.assert_close(decoded, vae.decode(plain).sample.detach().transpose(1, 2))
    for call in (lambda: tokenizer.encode(pixels), lambda: tokenizer.decode(latents)):
        with refuses("vae.use_tiling", "drop what they do not cover"):
            call()


def test_tiles_that_would_leave_gaps_are_refused(refuses) -> None:
    vae = make("opensora")
    for name, value in (("tile_size", 6), ("tile_size", 0), ("tile_frames", 6), ("tile_frames", 1)):
        with refuses(name, str(value)):
            changed = make("opensora")
            setattr(changed, name, value)
            VAETokenizer(changed).encode(clip(5, 16, 16))
    with refuses("latents", "no empty axis"):
        VAETokenizer(vae).decode(torch.zeros(1, 4, 0, 2, 2))
    with refuses("pixels", "at least one clip"):
        VAETokenizer(vae).encode(torch.zeros(0, 3, 5, 16, 16))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("norm_num_groups", 16), ("act_fn", "relu"), ("block_out_channels", (32, 32, 32)),
        ("down_block_types", ("DownEncoderBlock2D",) * 4), ("up_block_types", ("Other",) * 4),
        ("down_block_types", ("DownEncoderBlock2D",) * 2 + ("AttnBlock",) * 2),
    ],
)  # fmt: skip
def test_a_config_that_it_does_not_build_is_refused(name, value, refuses) -> None:
    from contar.tokenizers import OpenSoraVAE

    with refuses(name):
        OpenSoraVAE(**{name: value})


@pytest.mark.parametrize("kind", VIDEO)
def test_only_frame_counts_of_the_stride_are_taken_and_they_come_back(kind: str) -> None:
    tokenizer = VAETokenizer(make(kind))
    stride = 8 if kind == "cogvideox" else tokenizer.time_stride
    first, side = 0 if kind == "allegro" else 1, side_of(tokenizer)
    taken = []
    for frames in range(1, 71):
        if frames % stride == first % stride:
            taken.append(frames)
            assert tokenizer.pixel_frames(tokenizer.latent_frames(frames)) == frames
            if frames < 40:
                latents = tokenizer.encode(clip(frames, side, side))
                assert latents.shape[2] == tokenizer.latent_frames(frames)
                assert tokenizer.decode(latents).shape[2] == frames
        else:
            with pytest.raises(ValueError, match=r"num_frames: got .*allowed: .* frames"):
                tokenizer.latent_frames(frames)
    assert taken


@pytest.mark.parametrize("tile_frames", [None, 5, 17])
def test_every_length_up_to_70_frames_comes_out_exact(tile_frames: int | None) -> None:
    vae = make("opensora")
    vae.tile_frames = tile_frames
    tokenizer = VAETokenizer(vae)
    for frames in range(1, 71, 4):
        latents = tokenizer.encode(clip(frames, 8, 16))
        assert latents.shape[2] == (frames - 1) // 4 + 1
        assert tokenizer.decode(latents).shape == (1, 3, frames, 8, 16)


def test_a_tile_in_time_is_encoded_and_decoded_as_if_alone() -> None:
    tokenizer = VAETokenizer(make("opensora"))
    pixels = clip(29, 16, 16)
    latents = tokenizer.encode(pixels)
    torch.testing.assert_close(latents[:, :, :5], tokenizer.encode(pixels[:, :, :17]))
    torch.testing.assert_close(latents[:, :, 5:], tokenizer.encode(pixels[:, :, 16:])[:, :, 1:])
    decoded = tokenizer.decode(latents)
    torch.testing.assert_close(decoded[:, :, :17], tokenizer.decode(latents[:, :, :5]))
    torch.testing.assert_close(decoded[:, :, 17:], tokenizer.decode(latents[:, :, 4:])[:, :, 1:])


def test_a_frame_as_large_as_a_tile_is_the_same_tiled_or_whole() -> None:
    vae = make("opensora")
    tokenizer, pixels = VAETokenizer(vae), clip(5, 32, 32)
    whole = tokenizer.encode(pixels)
    decoded = tokenizer.decode(whole)
    vae.enable_tiling()
    vae.tile_size = 4
    torch.testing.assert_close(tokenizer.encode(pixels), whole)
    torch.testing.assert_close(tokenizer.decode(whole), decoded)


def test_tiles_of_a_larger_frame_keep_its_shape_and_stay_in_place() -> None:
    vae = make("opensora")
    tokenizer, pixels = VAETokenizer(vae), clip(5, 96, 120)
    whole = tokenizer.encode(pixels)
    decoded = tokenizer.decode(whole)
    vae.enable_tiling()
    vae.tile_size = 12
    for tiles_, all_ in ((tokenizer.encode(pixels), whole), (tokenizer.decode(whole), decoded)):
        assert tiles_.shape == all_.shape
        assert tiles_.isfinite().all()
        # Norms and attention see less, so values differ; tiles in wrong places correlate at 0.
        correlation = torch.corrcoef(torch.stack([tiles_.flatten(), all_.flatten()]))[0, 1]
        assert correlation > 0.5, correlation


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 21), (40, 33)])
def test_tiles_that_are_scaled_by_a_pointwise_function_are_blended_without_a_seam(
    height: int, width: int
) -> None:
    x = clip(2, height, width)
    torch.testing.assert_close(tiled(lambda t: 3 * t, x, 8, 1), 3 * x)


def test_tiles_cover_a_range_share_their_overlap_and_end_with_it() -> None:
    for length in range(1, 60):
        for size, overlap in ((17, 1), (5, 1), (8, 2), (4, 0)):
            cuts = tiles(length, size, overlap)
            assert cuts[0][0] == 0
            assert cuts[-1][1] == length
            assert all(b - a == size for a, b in cuts[:-1])
            assert all(before[1] - after[0] == overlap for before, after in pairwise(cuts))


def test_slicing_changes_nothing_but_memory() -> None:
    vae, pixels = make("opensora"), clip(5, 16, 16, batch=3)
    together = vae.encode(pixels).latent_dist.parameters
    vae.enable_slicing()
    torch.testing.assert_close(vae.encode(pixels).latent_dist.parameters, together)
    moments = vae.encode(pixels, return_dict=False)[0].parameters
    torch.testing.assert_close(moments, together)


def test_an_image_is_encoded_as_a_clip_of_one_frame() -> None:
    tokenizer = VAETokenizer(make("opensora"))
    assert tokenizer.encode(clip(1, 16, 24)).shape == (1, 4, 1, 2, 3)


def test_a_draw_follows_its_generator_and_each_sample_its_own() -> None:
    tokenizer, pixels = VAETokenizer(make("opensora")), clip(5, 16, 16, batch=2)

    def draw(seeds: list[int]) -> Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return tokenizer.encode(pixels, generator=generators)

    one = tokenizer.encode(pixels, generator=torch.Generator().manual_seed(3))
    again = tokenizer.encode(pixels, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(one, again, rtol=0, atol=0)
    assert not torch.equal(one, tokenizer.encode(pixels))
    torch.testing.assert_close(draw([1, 2])[1], draw([7, 2])[1], rtol=0, atol=0)


def test_bfloat16_autoencoders_take_and_return_float32() -> None:
    vae: Any = opensora().bfloat16()
    tokenizer = VAETokenizer(vae)
    latents = tokenizer.encode(clip(5, 16, 16))
    assert latents.dtype == tokenizer.decode(latents).dtype == torch.float32


def test_a_saved_autoencoder_loads_the_same(tmp_path: Any) -> None:
    vae = make("opensora")
    vae.save_pretrained(tmp_path)
    from contar.tokenizers import OpenSoraVAE

    loaded = OpenSoraVAE.from_pretrained(tmp_path)
    pixels = clip(5, 16, 16)
    weights = loaded.state_dict()
    assert all(torch.equal(weights[name], x) for name, x in vae.state_dict().items())
    assert weights.keys() == vae.state_dict().keys()
    torch.testing.assert_close(  # a loaded one has faster layers
        VAETokenizer(loaded).encode(pixels), VAETokenizer(vae).encode(pixels), rtol=1e-4, atol=1e-5
    )
