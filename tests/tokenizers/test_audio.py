"""A codec's waves and latents are those of transformers, whole and in pieces."""

import importlib

import pytest
import torch
from torch import nn

from contar.tokenizers import AudioTokenizer

pytest.importorskip("transformers", minversion="5.24", reason="transformers below 5.24")
transformers = importlib.import_module("transformers.models.pocket_tts_audio_tokenizer")
SIZES = {
    "hidden_size": 16, "num_filters": 4, "upsampling_ratios": [3, 2], "upsample_groups": 16,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
    "intermediate_size": 32, "sliding_window": 5, "latent_stride": 2, "latent_dim": 4,
    "sampling_rate": 1200, "layer_scale_initial_scale": 1.0,
}  # fmt: skip


def codec_of(**options):
    torch.manual_seed(0)
    config = transformers.PocketTTSAudioTokenizerConfig(**SIZES, **options)
    return transformers.PocketTTSAudioTokenizerModel(config).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AudioTokenizer(codec_of())


def test_strides_and_rates_are_the_codecs(tokenizer):
    assert (tokenizer.channels, tokenizer.rate, tokenizer.stride) == (4, 1200, 12)


def test_latents_and_waves_are_those_of_the_codec(tokenizer):
    waves = torch.randn(2, 12 * 5)
    with torch.no_grad():
        latents = tokenizer.codec.encode(waves[:, None]).latents
        back = tokenizer.codec.decode(latents).audio_values[:, 0]
    assert torch.equal(tokenizer.encode(waves), latents)
    assert torch.equal(tokenizer.decode(latents), back)
    assert back.shape == waves.shape


def test_silence_fills_up_the_last_latent(tokenizer):
    waves = torch.randn(1, 12 * 4 + 7)
    silent = nn.functional.pad(waves, (0, 5))
    assert torch.equal(tokenizer.encode(waves), tokenizer.encode(silent))


def test_pieces_equal_the_whole_when_they_overlap_by_the_reach(tokenizer):
    latents = torch.randn(2, 40, 4)
    whole, pieces, state = tokenizer.decode(latents), [], None
    assert tokenizer.reach < 25
    for piece in latents.split([1, 3, 30, 6], dim=1):
        wave, state = tokenizer.decode_next(piece, state)
        pieces.append(wave)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-4, atol=1e-5)


def test_a_shorter_overlap_comes_near_only(tokenizer):
    latents = torch.randn(1, 40, 4)
    _, state = tokenizer.decode_next(latents[:, :39], overlap=1)
    wave, _ = tokenizer.decode_next(latents[:, 39:], state)
    assert not torch.allclose(wave, tokenizer.decode(latents)[:, -12:], atol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "method", "argument"),
    [
        (torch.zeros(2), "encode", "waves"),
        (torch.zeros(2, 0), "encode", "waves"),
        (torch.full((1, 12), torch.nan), "encode", "waves"),
        (torch.zeros(1, 3, 5), "decode", "latents"),
        (torch.zeros(1, 0, 4), "decode", "latents"),
        (torch.full((1, 2, 4), torch.inf), "decode", "latents"),
        (torch.zeros(1, 3, 5), "decode_next", "latents"),
    ],
)
def test_waves_and_latents_that_do_not_fit_are_refused(tokenizer, wrong, method, argument, refuses):
    with refuses(argument):
        getattr(tokenizer, method)(wrong)


def test_a_state_of_others_is_refused(tokenizer, refuses):
    latents = torch.zeros(1, 1, 4)
    for state in ((torch.zeros(2, 1, 4),), (torch.zeros(1, 1, 3),), ()):
        with refuses("state"):
            tokenizer.decode_next(latents, state)
    with refuses("overlap"):
        tokenizer.decode_next(latents, overlap=0)


def test_a_codec_of_one_half_says_which_it_lacks(refuses):
    decoder, encoder = codec_of(encoder_config=None), codec_of(decoder_config=None)
    with refuses("codec", "encoder"):
        AudioTokenizer(decoder).encode(torch.zeros(1, 12))
    with refuses("codec", "decoder"):
        AudioTokenizer(encoder).decode(torch.zeros(1, 1, 4))


def test_another_codec_is_refused(refuses):
    with refuses("codec", "PocketTTSAudioTokenizerModel"):
        AudioTokenizer(nn.Linear(1, 1))
