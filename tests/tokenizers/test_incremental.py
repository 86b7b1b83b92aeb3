"""Decoding a clip in pieces: equal to the whole where state is carried, near it elsewhere."""

from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_vaes import KINDS, make
from torch import Tensor

from contar.cpu import plain, speed_up
from contar.tokenizers import CausalVAE, VAETokenizer, causal_vae

few = settings(max_examples=min(settings().max_examples, 50))
# Sums of float32 in another order, as a library may take for pieces of another length.
ROUNDING: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


def causal(depth: int = 1) -> CausalVAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes: Any = {"widths": (8, 16, 24), "latents_mean": [1.0] * 4, "latents_std": [2.0] * 4}
        return CausalVAE(**sizes, depth=depth).eval()


VAES = {depth: causal(depth) for depth in (1, 2)}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def in_pieces(tokenizer: VAETokenizer, latents: Tensor, cut: list[int], **options: Any) -> Tensor:
    pieces, state = [], None
    for part in latents.split(cut, dim=2):
        piece, state = tokenizer.decode_next(part, state, **options)
        pieces.append(piece)
    return torch.cat(pieces, dim=2)


cuts = st.lists(st.integers(1, 3), min_size=1, max_size=4)


@few
@given(cuts, st.sampled_from([1, 2]), st.integers(1, 2), st.integers(1, 3), st.integers(1, 3),
       st.sampled_from([plain, speed_up]))  # fmt: skip
def test_pieces_of_our_own_equal_the_whole_wherever_it_is_cut(
    cut, depth, batch, height, width, swap
):
    latents = normal(batch, 4, sum(cut), height, width)
    tokenizer = VAETokenizer(swap(VAES[depth]))
    assert tokenizer.incremental
    whole = tokenizer.decode(latents)
    torch.testing.assert_close(in_pieces(tokenizer, latents, cut), whole, **ROUNDING)
    state, pieces = None, []
    with torch.no_grad():
        for part in latents.split(cut, dim=2):  # of the autoencoder itself, all clips at once
            piece, state = VAES[depth].decode_next(part, state)
            pieces.append(piece)
        together = VAES[depth].decode(latents).sample  # type: ignore[union-attr]
    torch.testing.assert_close(torch.cat(pieces, dim=2), together, **ROUNDING)


def test_pieces_in_bfloat16_are_as_near_to_float32_as_the_whole_in_bfloat16():
    latents = normal(1, 4, 4, 2, 3)
    exact, half = VAETokenizer(causal()).decode(latents), VAETokenizer(causal().bfloat16())
    whole, made = half.decode(latents), in_pieces(half, latents, [1, 2, 1])
    error, own = ((x - exact).abs().mean() for x in (made, whole))
    assert 0 < error < 1.2 * own


@given(cuts, st.sampled_from([kind for kind in KINDS if kind != "opensora"]), st.integers(1, 3))
@settings(max_examples=min(settings().max_examples, 30))
def test_pieces_of_any_autoencoder_have_as_many_frames_as_the_whole(cut, kind, overlap):
    tokenizer = VAETokenizer(make(kind))
    if kind == "cogvideox" and sum(cut) % 2 == 0:
        cut = [*cut, 1]  # it takes no others
    latents = normal(1, tokenizer.channels, sum(cut), 2, 2)
    whole = tokenizer.decode(latents)
    made = in_pieces(tokenizer, latents, cut, overlap=overlap)
    assert made.shape == whole.shape
    assert tokenizer.incremental == (kind == "image")
    if kind == "image":
        torch.testing.assert_close(made, whole, **ROUNDING)
    alone = in_pieces(tokenizer, latents, [sum(cut)])
    assert torch.equal(alone, whole)


def moving(frames: int) -> Tensor:
    """A disc that goes over a slope, [1, 3, t, 32, 48]."""
    t, y, x = torch.meshgrid(*map(torch.arange, (frames, 32, 48)), indexing="ij")
    disc = torch.sigmoid(8 - ((x - 8 - t).float().hypot(y - 16.0)))
    return torch.stack([disc, x / 48, y / 32])[None] * 2 - 1


def test_pieces_that_overlap_more_come_nearer_to_the_whole_of_a_vae_that_pools_over_time():
    tokenizer = VAETokenizer(make("opensora"))
    assert not tokenizer.incremental
    latents = tokenizer.encode(moving(17))
    whole = tokenizer.decode(latents)
    apart = [
        float((in_pieces(tokenizer, latents, [1] * 5, overlap=overlap) - whole).abs().mean())
        for overlap in (1, 2, 4)
    ]
    assert apart[0] > apart[1] > apart[2] > 0
    assert apart[2] < 0.15 * float(whole.std())  # 0.094 of these random weights


# A state is the caller's.


def held(state: Any) -> list[Tensor]:
    return [x.clone() for x in state]


@pytest.mark.parametrize("kind", ["causal", "opensora"])
def test_a_state_is_left_as_it_is_and_may_be_gone_on_from_twice(kind):
    tokenizer = VAETokenizer(VAES[1] if kind == "causal" else make("opensora"))
    first, one, two = (normal(2, 4, 2, 2, 2, seed=seed) for seed in range(3))
    _, state = tokenizer.decode_next(first)
    before = held(state)
    made = tokenizer.decode_next(one, state)[0]
    other = tokenizer.decode_next(two, state)[0]
    again, after = tokenizer.decode_next(one, state)
    assert torch.equal(made, again)
    assert not torch.equal(made, other)
    after[0].fill_(9.0)
    assert all(map(torch.equal, state, before))
    if kind == "causal":
        for part, found in ((one, made), (two, other)):
            whole = tokenizer.decode(torch.cat([first, part], dim=2))[:, :, 5:]
            torch.testing.assert_close(found, whole, **ROUNDING)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), torch.OutOfMemoryError("no memory")])
@pytest.mark.parametrize("layer", range(1, 6))
def test_a_call_that_fails_leaves_the_state_and_the_weights_as_they_were(error, layer):
    vae = causal()
    tokenizer, latents = VAETokenizer(vae), normal(1, 4, 3, 2, 2)
    weights = {name: value.clone() for name, value in vae.state_dict().items()}
    piece, state = tokenizer.decode_next(latents[:, :, :2])
    before = held(state)
    failing = mock.patch.object(vae.decoder[layer], "forward", side_effect=error)
    with failing, pytest.raises(type(error)):
        tokenizer.decode_next(latents[:, :, 2:], state)
    assert all(map(torch.equal, state, before))
    assert all(torch.equal(value, weights[name]) for name, value in vae.state_dict().items())
    made = torch.cat([piece, tokenizer.decode_next(latents[:, :, 2:], state)[0]], dim=2)
    torch.testing.assert_close(made, tokenizer.decode(latents), **ROUNDING)


def test_a_state_does_not_grow_with_the_clip():
    tokenizer, state, sizes = VAETokenizer(VAES[1]), None, set()
    for seed in range(4):
        _, state = tokenizer.decode_next(normal(1, 4, 1 + seed, 2, 2, seed=seed), state)
        sizes.add(tuple(x.shape for x in state))
    assert len(sizes) == 1


def test_what_is_no_state_of_these_clips_is_refused(refuses):
    latents = normal(2, 4, 1, 2, 2)
    for vae in (VAES[1], make("opensora")):
        tokenizer = VAETokenizer(vae)
        _, state = tokenizer.decode_next(latents)
        for wrong in (0, list(state), (*state, state[0]), tuple(x[:1] for x in state),
                      tuple(x[..., :1] for x in state), (torch.tensor(1.0),)):  # fmt: skip
            with refuses("state"):
                tokenizer.decode_next(latents, wrong)  # type: ignore[arg-type]
        with refuses("latents", "no empty axis"):
            tokenizer.decode_next(latents[:, :, :0], state)
        with refuses("overlap", "0"):
            tokenizer.decode_next(latents, state, overlap=0)
    _, other = VAETokenizer(VAES[2]).decode_next(latents)
    for call in (VAETokenizer(VAES[1]).decode_next, VAES[1].decode_next):
        with refuses("state"):
            call(latents, other)
    with refuses("z", "no empty axis"):
        VAES[1].decode_next(latents[:, :, :0])


def test_the_whole_is_decoded_without_notes():
    with mock.patch.object(causal_vae, "Past", side_effect=AssertionError):
        assert VAES[1].decode(normal(1, 4, 2, 2, 2)).sample.shape[2] == 5  # type: ignore[union-attr]
