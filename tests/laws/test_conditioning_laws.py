"""The laws of the adapter and of guidance, and of the patches that all conditions come from."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from contar.conditioning import FrameTimes, Guidance, ScalarEmbedding, ScaleShiftAdapter
from contar.tokenizers import patchify, unpatchify

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 4)
ranks = st.none() | st.integers(1, 6)
scales = st.floats(1.0625, 20)
shares = st.floats(0, 1)

ROUNDING = 1e-5  # float32 rounds at 6e-8; at most tens of terms of size up to 20 are added


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def adapter_of(width: int, rank: int | None, seed: int) -> ScaleShiftAdapter:
    adapter, draws = ScaleShiftAdapter(width, rank=rank), generator(seed)
    for weight in adapter.parameters():
        weight.data = torch.randn(weight.shape, generator=draws)
    return adapter


# --- the scale-and-shift adapter ---


@given(
    lead=st.lists(sizes, min_size=1, max_size=3),
    width=st.integers(1, 8),
    rank=ranks,
    seed=seeds,
)
def test_an_adapter_without_weights_gives_the_anchor(
    lead: list[int], width: int, rank: int | None, seed: int
) -> None:
    adapter = adapter_of(width, rank, seed)
    anchor, features = torch.randn(2, *lead, width, generator=generator(seed))
    assert not torch.equal(adapter(anchor, features), anchor)
    for weight in adapter.up.parameters():
        weight.data.zero_()
    assert torch.equal(adapter(anchor, features), anchor)


@given(width=st.integers(1, 8), rank=st.integers(1, 6), tokens=sizes, seed=seeds)
def test_an_adapter_of_rank_r_equals_its_explicit_product(
    width: int, rank: int, tokens: int, seed: int
) -> None:
    adapter = adapter_of(width, rank, seed)
    anchor, features = torch.randn(2, tokens, width, generator=generator(seed))
    assert adapter.down is not None
    product = adapter.up.weight @ adapter.down.weight
    full = ScaleShiftAdapter(width)
    full.up.weight.data, full.up.bias.data = product.data, adapter.up.bias.data
    activated = features * torch.sigmoid(features)
    rows = activated @ product.T + adapter.up.bias
    written_out = anchor * (1 + rows[:, :width]) + rows[:, width:]
    for wanted in (full(anchor, features), written_out):
        scale = wanted.detach().abs().max().clamp_min(1)
        assert (adapter(anchor, features) - wanted).abs().max() <= 10 * ROUNDING * scale


@given(batch=sizes, frames=sizes, tokens=sizes, width=st.integers(1, 8), rank=ranks, seed=seeds)
def test_one_anchor_serves_all_frames(
    batch: int, frames: int, tokens: int, width: int, rank: int | None, seed: int
) -> None:
    adapter, draws = adapter_of(width, rank, seed), generator(seed)
    anchor = torch.randn(batch, 1, tokens, width, generator=draws)
    features = torch.randn(batch, frames, tokens, width, generator=draws)
    together = adapter(anchor, features)
    assert together.shape == features.shape
    for t in range(frames):
        alone = adapter(anchor[:, 0], features[:, t])
        torch.testing.assert_close(together[:, t], alone, rtol=ROUNDING, atol=10 * ROUNDING)


# --- guidance ---


def predictions(seed: int, batch: int = 2, tokens: int = 3, c: int = 4) -> tuple[Tensor, Tensor]:
    cond, uncond = torch.randn(2, batch, tokens, c, generator=generator(seed))
    return cond, uncond


def lengths(x: Tensor) -> Tensor:
    """The length of each sample."""
    return x.double().square().sum(dim=(1, 2)).sqrt()


@given(scale=shares, start=st.none() | shares, truncation=st.floats(0, 1000), done=shares)
def test_a_scale_from_0_to_1_is_no_guidance_at_any_timestep(
    scale: float, start: float | None, truncation: float, done: float
) -> None:
    guidance = Guidance(scale, start, truncation)
    assert not guidance.active
    assert not any(guidance.at(done).applies(t) for t in (0.0, truncation, 999.0))


@given(scale=scales, truncation=st.floats(0, 1000), timestep=st.floats(0, 1000))
def test_guidance_acts_from_its_truncation_on_and_not_below(
    scale: float, truncation: float, timestep: float
) -> None:
    guidance = Guidance(scale, truncation=truncation)
    assert guidance.active
    assert guidance.applies(timestep) == (timestep >= truncation)
    assert guidance.applies(truncation)
    below = math.nextafter(truncation, -1)
    assert not guidance.applies(below)


@given(scale=scales, ceiling=st.floats(0, 1000), timestep=st.floats(0, 1000))
def test_guidance_acts_up_to_its_ceiling_and_not_above(
    scale: float, ceiling: float, timestep: float
) -> None:
    guidance = Guidance(scale, ceiling=ceiling)
    assert guidance.applies(timestep) == (timestep <= ceiling)
    assert guidance.applies(ceiling)


@given(scale=scales, start=st.none() | scales, ends=st.tuples(shares, shares), done=shares)
def test_guidance_in_an_interval_of_sets_is_itself_there_and_none_outside(
    scale: float, start: float | None, ends: tuple[float, float], done: float
) -> None:
    interval = (min(ends), max(ends))
    now = Guidance(scale, start, 3.0, interval=interval).at(done)
    inside = interval[0] <= done <= interval[1]
    assert now == (Guidance(scale, start, 3.0).at(done) if inside else Guidance(1.0, None, 3.0))
    now.check_constant()
    assert now.constant
    assert Guidance(scale, start, interval=interval).constant == (
        start is None and interval == (0, 1)
    )


@given(scale=st.floats(0, 20), done=shares, renorm=shares)
def test_guidance_without_a_start_is_constant(scale: float, done: float, renorm: float) -> None:
    guidance = Guidance(scale, None, 3.0, renorm, "frame")
    assert guidance.at(done) == guidance
    assert guidance.constant


@given(scale=st.floats(0, 20), start=st.floats(0, 20), a=shares, b=shares, renorm=shares)
def test_guidance_with_a_start_is_linear_in_the_share_that_is_done(
    scale: float, start: float, a: float, b: float, renorm: float
) -> None:
    guidance = Guidance(scale, start, 3.0, renorm, "frame")
    near = 1e-12 * 20  # float64 rounds at 1e-16
    assert abs(guidance.at(0).scale - start) <= near
    assert abs(guidance.at(1).scale - scale) <= near
    middle = (guidance.at(a).scale + guidance.at(b).scale) / 2
    assert abs(guidance.at((a + b) / 2).scale - middle) <= near
    for done in (a, b):
        now = guidance.at(done)
        assert abs(now.scale - ((1 - done) * start + done * scale)) <= near
        assert now == Guidance(now.scale, None, 3.0, renorm, "frame")
        assert now.at(a) == now
        assert guidance.active or not now.applies(999.0)


@given(seed=seeds)
def test_scale_1_gives_the_conditional_and_0_the_unconditional_prediction(seed: int) -> None:
    cond, uncond = predictions(seed)
    torch.testing.assert_close(Guidance(1.0).combine(cond, uncond), cond, rtol=0, atol=ROUNDING)
    assert torch.equal(Guidance(0.0).combine(cond, uncond), uncond)


@given(scale=st.floats(0, 20), seed=seeds)
def test_guidance_moves_along_the_line_from_unconditional_to_conditional(
    scale: float, seed: int
) -> None:
    cond, uncond = predictions(seed)
    guided = Guidance(scale).combine(cond, uncond)
    wanted = scale * cond.double() + (1 - scale) * uncond.double()
    torch.testing.assert_close(guided.double(), wanted, rtol=ROUNDING, atol=10 * ROUNDING)
    torch.testing.assert_close(Guidance(scale).combine(cond, cond), cond, rtol=0, atol=0)


@given(scale=st.floats(0, 20), seed=seeds)
def test_renorm_1_is_off(scale: float, seed: int) -> None:
    cond, uncond = predictions(seed)
    cond = cond / 8  # the guided prediction is longer: another renorm would shorten it
    guided = Guidance(scale, renorm=1.0).combine(cond, uncond)
    assert torch.equal(guided, uncond + scale * (cond - uncond))


@given(scale=scales, renorm=shares, share=st.floats(-2, 3), seed=seeds)
def test_a_renormalised_prediction_is_shortened_to_the_conditional_one_as_far_as_renorm_lets_it(
    scale: float, renorm: float, share: float, seed: int
) -> None:
    cond, uncond = predictions(seed)
    uncond = share * cond + uncond / 8  # with a share above 1 the guided prediction is the shorter
    guided = Guidance(scale).combine(cond, uncond)
    shortened = Guidance(scale, renorm=renorm).combine(cond, uncond)
    own, full, now = lengths(cond), lengths(guided), lengths(shortened)
    assert (now <= torch.maximum(own, renorm * full) * (1 + ROUNDING)).all()
    assert (now <= full * (1 + ROUNDING)).all()
    assert (now >= torch.minimum(own, full) * (1 - ROUNDING)).all()
    assert (now >= renorm * full * (1 - ROUNDING)).all()
    # Only the length changes.
    direction = guided * (now / full).float()[:, None, None]
    torch.testing.assert_close(shortened, direction, rtol=ROUNDING, atol=ROUNDING)


@given(scale=scales, renorm=st.floats(0, 0.5), seed=seeds)
def test_a_sample_is_renormalised_by_itself(scale: float, renorm: float, seed: int) -> None:
    cond, uncond = predictions(seed)
    guidance = Guidance(scale, renorm=renorm)
    both = guidance.combine(cond, uncond)
    for b in range(len(cond)):
        alone = guidance.combine(cond[b : b + 1], uncond[b : b + 1])
        torch.testing.assert_close(both[b : b + 1], alone, rtol=ROUNDING, atol=ROUNDING)


# --- numbers and times ---


@given(frames=st.integers(1, 6), base=st.integers(1, 6), which=st.integers(0, 5))
def test_a_frames_time_alone_is_that_which_it_has_among_all(
    frames: int, base: int, which: int
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        times, frame = FrameTimes(8, base=base), which % frames
    for law in ("stretch", "continue"):
        every, alone = times(frames, law=law), times(frames, frame=frame, law=law)
        assert every.shape == (frames, 8)
        torch.testing.assert_close(alone, every[frame : frame + 1])


@given(width=st.integers(2, 8), seed=seeds)
def test_a_normed_embedding_is_divided_by_its_root_mean_square_or_its_deviation(
    width: int, seed: int
) -> None:
    values = 1000 * torch.rand(5, generator=generator(seed))
    for norm in ("rms", "deviation"):
        embed = ScalarEmbedding(width, norm=norm)
        assert embed.weight is not None
        for parameter in embed.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator(seed))
        normed, weight, embed.weight = embed(values), embed.weight, None
        plain = embed(values).double()
        square = plain.square().mean(-1) if norm == "rms" else plain.var(-1)
        wanted = weight * plain / (square + 1e-5).sqrt()[:, None]
        torch.testing.assert_close(normed.double(), wanted, rtol=1e-4, atol=1e-4)


# --- patches ---

grids = st.tuples(st.integers(1, 5), st.integers(1, 5))
leads = st.lists(st.integers(1, 3), max_size=2)


@given(lead=leads, grid=grids, patch=sizes, c=sizes, first=st.booleans(), seed=seeds)
def test_unpatchify_is_the_inverse_of_patchify(
    lead: list[int], grid: tuple[int, int], patch: int, c: int, first: bool, seed: int
) -> None:
    rows, columns = grid
    latents = torch.randn(*lead, c, rows * patch, columns * patch, generator=generator(seed))
    tokens = patchify(latents, patch, channel_first=first)
    assert tokens.shape == (*lead, rows * columns, patch * patch * c)
    assert torch.equal(unpatchify(tokens, grid, patch, channel_first=first), latents)
    other = torch.randn(tokens.shape, generator=generator(seed + 1))
    frames = unpatchify(other, grid, patch, channel_first=first)
    assert torch.equal(patchify(frames, patch, channel_first=first), other)


@given(grid=grids, patch=sizes, c=sizes, seed=seeds)
def test_a_token_with_channels_first_holds_the_same_values_by_channel(
    grid: tuple[int, int], patch: int, c: int, seed: int
) -> None:
    shape = (c, grid[0] * patch, grid[1] * patch)
    latents = torch.randn(shape, generator=generator(seed))
    tokens = patchify(latents, patch, channel_first=True).unflatten(-1, (c, patch * patch))
    others = patchify(latents, patch).unflatten(-1, (patch * patch, c))
    assert torch.equal(tokens, others.transpose(-2, -1))


@given(grid=grids, patch=sizes, c=sizes, seed=seeds)
def test_a_token_holds_the_values_of_its_patch_by_row_column_and_channel(
    grid: tuple[int, int], patch: int, c: int, seed: int
) -> None:
    rows, columns = grid
    latents = torch.randn(c, rows * patch, columns * patch, generator=generator(seed))
    tokens = patchify(latents, patch)
    for row in range(rows):
        for column in range(columns):
            token = tokens[row * columns + column]
            for y in range(patch):
                for x in range(patch):
                    values = token[(y * patch + x) * c : (y * patch + x + 1) * c]
                    pixel = latents[:, row * patch + y, column * patch + x]
                    assert torch.equal(values, pixel)


@given(grid=grids, patch=st.integers(1, 3), seed=seeds)
def test_a_coarse_patch_covers_two_by_two_tokens(
    grid: tuple[int, int], patch: int, seed: int
) -> None:
    """A token changes exactly the coarse patch that it lies in."""
    rows, columns = grid
    shape = (1, 2 * rows * patch, 2 * columns * patch)
    latents = torch.randn(shape, generator=generator(seed))
    tokens = patchify(latents, patch).clone()
    which = seed % len(tokens)
    tokens[which] += 1
    changed = patchify(unpatchify(tokens, (2 * rows, 2 * columns), patch), 2 * patch)
    differs = (changed != patchify(latents, 2 * patch)).any(-1)
    row, column = divmod(which, 2 * columns)
    assert differs.nonzero().flatten().tolist() == [(row // 2) * columns + column // 2]


@given(width=st.integers(1, 8), rank=ranks, seed=seeds)
def test_an_adapter_scales_and_shifts_an_anchor_of_zeros_and_of_ones(
    width: int, rank: int | None, seed: int
) -> None:
    adapter = adapter_of(width, rank, seed)
    features = torch.randn(3, width, generator=generator(seed))
    shift = adapter(torch.zeros_like(features), features)
    factor = adapter(torch.ones_like(features), features) - shift
    anchor = torch.randn(3, width, generator=generator(seed + 1))
    wanted = anchor * factor + shift
    scale = wanted.detach().abs().max().clamp_min(1) * factor.detach().abs().max().clamp_min(1)
    assert (adapter(anchor, features) - wanted).abs().max() <= ROUNDING * scale
    hidden = functional.silu(features)
    hidden = hidden if adapter.down is None else hidden @ adapter.down.weight.T
    rows = hidden @ adapter.up.weight.T + adapter.up.bias
    torch.testing.assert_close(shift, rows[:, width:], rtol=ROUNDING, atol=10 * ROUNDING)
