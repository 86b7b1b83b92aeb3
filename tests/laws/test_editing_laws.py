"""The laws of editing: given tokens come back, and the others are made as a frame always is."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_mar import PLAN as MAR_PLAN
from tiny_mar import tiny_mar
from tiny_nova import VIDEOS, texts, tiny_nova
from torch import Tensor

from contar.generation import Graphs, Progress
from contar.ordering import SetSchedule, kept_first, random_order, set_sizes
from contar.tokenizers import patchify
from recipes import mar, nova

# With every shape checked a generation takes 50 to 100 ms: the short profile draws few.
few = settings(max_examples=10 if settings().max_examples < 1000 else 1000)

FRAMES, GRID = 3, (4, 4)
TOKENS = GRID[0] * GRID[1]
LABELS = torch.tensor([2, 0])

seeds = st.integers(0, 2**31)
models = st.sampled_from(VIDEOS)
plans = st.fixed_dictionaries(
    {
        "sets": st.integers(3, 8),
        "curve": st.sampled_from(["cosine", "linear", "uniform"]),
        "rounding": st.sampled_from(["nearest", "floor"]),
        "guidance": st.sampled_from([nova.Guidance(1.0), nova.Guidance(3.0, 1.0)]),
        "refresh": st.integers(1, 3),
        "last_diffusion_steps": st.sampled_from([None, 1]),
    },
    optional={"order": st.just("checkerboard"), "filling_sets": st.integers(1, 2)},
).filter(lambda plan: "order" in plan or "filling_sets" not in plan)
chunks = st.sampled_from([{}, {"chunk": 2, "overlap": 1}, {"window": 1}])


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latents(seed: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 2, FRAMES, *GRID, generator=generator(seed + 1))


def masks(seed: int, share: float = 0.5) -> Tensor:
    """Return [t, rows, columns], some tokens of each frame kept, and some not."""
    keep = torch.rand(FRAMES, TOKENS, generator=generator(seed + 2)) < share
    keep[:, :2] = torch.tensor([True, False])
    return keep.view(FRAMES, *GRID)


def generate(model: str, seed: int, plan: dict[str, Any], batch: int = 2, **options: Any) -> Tensor:
    made = nova.GenerationPlan(frames=FRAMES, diffusion_steps=2, grid=GRID, **plan)
    options = {"generator": generator(seed), **options}
    return nova.generate(tiny_nova(model), texts(batch, seed), made, **options)


# --- NOVA ---


@few
@given(model=models, seed=seeds, plan=plans, more=chunks, one=st.booleans(), kind=st.booleans())
def test_given_tokens_come_back_to_the_last_bit_and_all_others_are_made(
    model: str, seed: int, plan: dict[str, Any], more: dict[str, int], one: bool, kind: bool
) -> None:
    clip = latents(seed).to(torch.float64 if kind else torch.bfloat16)
    keep = masks(seed)[0] if one else masks(seed)
    before = (clip.clone(), keep.clone())
    graphs = None if plan["refresh"] > 1 else Graphs()
    found = generate(model, seed, plan | more, latents=clip, keep=keep, graphs=graphs)
    every = keep.expand(FRAMES, *GRID)
    assert torch.equal(found[:, :, every], clip[:, :, every].to(found.dtype))
    assert found.dtype == (torch.float64 if kind else torch.float32)
    assert found.isfinite().all()
    assert not (found == clip)[:, :, ~every].any()
    assert torch.equal(clip, before[0])
    assert torch.equal(keep, before[1])


@few
@given(model=models, seed=seeds, plan=plans, more=chunks)
def test_with_nothing_kept_it_is_a_generation_draws_included(
    model: str, seed: int, plan: dict[str, Any], more: dict[str, int]
) -> None:
    draws, others = generator(seed), generator(seed)
    keep = torch.zeros(GRID, dtype=torch.bool)
    found = generate(model, seed, plan | more, latents=latents(seed), keep=keep, generator=draws)
    assert torch.equal(found, generate(model, seed, plan | more, generator=others))
    assert torch.equal(draws.get_state(), others.get_state())


@few
@given(model=models, seed=seeds, plan=plans, token=st.integers(0, TOKENS - 1))
def test_all_but_one_kept_takes_one_set_a_frame(
    model: str, seed: int, plan: dict[str, Any], token: int
) -> None:
    keep = (torch.arange(TOKENS) != token).view(GRID)
    seen: list[Progress] = []
    options: dict[str, Any] = {"latents": latents(seed), "keep": keep, "callback": seen.append}
    found = generate(model, seed, plan, **options)
    assert [(p.frame, p.set, p.sets) for p in seen] == [(t, 0, 1) for t in range(FRAMES)]
    assert torch.equal(found[:, :, :, keep], latents(seed)[:, :, :, keep])
    assert not (found == latents(seed))[:, :, :, ~keep].any()


@few
@given(model=models, seed=seeds, plan=plans, count=st.integers(1, 2))
def test_first_frames_kept_whole_are_given_frames(
    model: str, seed: int, plan: dict[str, Any], count: int
) -> None:
    keep = torch.zeros(FRAMES, *GRID, dtype=torch.bool)
    keep[:count] = True
    draws, others = generator(seed), generator(seed)
    clip, seen = latents(seed), []
    options: dict[str, Any] = {"latents": clip, "keep": keep, "callback": seen.append}
    found = generate(model, seed, plan, generator=draws, **options)
    assert torch.equal(found[:, :, :count], clip[:, :, :count])
    context = clip[:, :, :count]
    assert torch.equal(found, generate(model, seed, plan, generator=others, context=context))
    assert torch.equal(draws.get_state(), others.get_state())
    assert {progress.frame for progress in seen} == set(range(count, FRAMES))


@few
@given(model=models, seed=seeds, plan=plans, more=chunks)
def test_what_is_not_kept_is_not_read_and_a_later_frame_changes_no_earlier_one(
    model: str, seed: int, plan: dict[str, Any], more: dict[str, int]
) -> None:
    clip, keep = latents(seed), masks(seed)
    found = generate(model, seed, plan | more, latents=clip, keep=keep)
    hidden = torch.where(keep, clip, torch.nan)
    assert torch.equal(found, generate(model, seed, plan | more, latents=hidden, keep=keep))
    clip[:, :, -1] += 1
    later = generate(model, seed, plan | more, latents=clip, keep=keep)
    assert torch.equal(found[:, :, :-1], later[:, :, :-1])
    assert not torch.equal(found[:, :, -1], later[:, :, -1])


@few
@given(model=models, seed=seeds, share=st.floats(0, 1), sets=st.integers(1, TOKENS))
def test_given_tokens_are_seen_first_and_the_rest_is_cut_as_a_frame_of_so_many(
    model: str, seed: int, share: float, sets: int
) -> None:
    keep, seen = masks(seed, share), []
    order = random_order(2, TOKENS, generator=generator(seed))
    plan = {"sets": sets, "guidance": nova.Guidance(1.0)}
    network = tiny_nova(model)
    hook = network.spatial.register_forward_hook(lambda _, given, out: seen.append(given[2]))
    with hook:
        generate(model, seed, plan, latents=latents(seed), keep=keep, order=order)
    visible = iter(seen)
    for kept in keep.flatten(1):
        rest = int((~kept).sum())
        first = kept_first(order, kept)
        shown = TOKENS - rest
        for size in set_sizes(rest, min(sets, rest)):
            assert torch.equal(next(visible), first[:, :shown])
            shown += size
    assert next(visible, None) is None


@few
@given(model=models, seed=seeds, plan=plans)
def test_with_a_generator_each_a_sample_does_not_depend_on_its_neighbours(
    model: str, seed: int, plan: dict[str, Any]
) -> None:
    def draws() -> list[torch.Generator]:
        return [generator(seed), generator(seed + 1)]

    clip, keep = latents(seed), masks(seed)
    both = generate(model, seed, plan, latents=clip, keep=keep, generator=draws())
    one = generate(model, seed, plan, 1, latents=clip[:1], keep=keep, generator=draws()[:1])
    torch.testing.assert_close(one, both[:1], rtol=1e-4, atol=1e-4)


@given(model=models, seed=seeds)
def test_the_ends_of_a_mix_of_prompts_are_the_prompts(model: str, seed: int) -> None:
    network = tiny_nova(model)
    short, long = texts(2, seed)[:, :1], texts(2, seed + 7)
    assert torch.equal(nova.mix(network, short, long, 0), network.text.pad(short))
    assert torch.equal(nova.mix(network, short, long, 1), network.text.pad(long))
    half = (network.text.pad(short) + network.text.pad(long)) / 2
    torch.testing.assert_close(nova.mix(network, short, long, 0.5), half)
    plan = nova.GenerationPlan(frames=1, sets=2, diffusion_steps=2, grid=GRID)
    made = [
        nova.generate(network, states, plan, generator=generator(seed))
        for states in (short, nova.mix(network, short, long, 0), nova.mix(network, short, long, 1))
    ]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


# --- MAR ---


def make(seed: int, plan: dict[str, Any], labels: Tensor = LABELS, **options: Any) -> Tensor:
    made = mar.GenerationPlan(
        **{"diffusion_steps": 2, "guidance": MAR_PLAN.guidance, "rounding": "floor", **plan}
    )
    return mar.generate(tiny_mar(), labels, made, **{"generator": generator(seed), **options})


mar_plans = st.fixed_dictionaries(
    {
        "sets": st.integers(2, 4),
        "refresh": st.integers(1, 3),
        "last_diffusion_steps": st.sampled_from([None, 1]),
    },
    optional={"order": st.just("checkerboard")},
)


@few
@given(seed=seeds, plan=mar_plans)
def test_mar_gives_kept_tokens_back_to_the_last_bit(seed: int, plan: dict[str, Any]) -> None:
    clip = torch.randn(2, 2, 4, 8, generator=generator(seed))
    keep = torch.rand(2, 4, generator=generator(seed + 1)) < 0.5
    keep[0, :2] = torch.tensor([True, False])
    found = make(seed, plan, latents=clip, keep=keep)
    tokens, given_tokens = (patchify(x, 2, channel_first=True) for x in (found, clip))
    flat = keep.flatten()
    assert torch.equal(tokens[:, flat], given_tokens[:, flat])
    assert not (tokens == given_tokens)[:, ~flat].any()
    pixels = keep.repeat_interleave(2, 0).repeat_interleave(2, 1)
    hidden = torch.where(pixels, clip, torch.nan)
    assert torch.equal(found, make(seed, plan, latents=hidden, keep=keep))


@few
@given(seed=seeds, plan=mar_plans, token=st.integers(0, 7))
def test_mar_with_nothing_kept_is_a_generation_and_with_all_but_one_takes_a_set(
    seed: int, plan: dict[str, Any], token: int
) -> None:
    clip, draws, others = torch.randn(2, 2, 4, 8), generator(seed), generator(seed)
    keep = torch.zeros(2, 4, dtype=torch.bool)
    found = make(seed, plan, latents=clip, keep=keep, generator=draws)
    assert torch.equal(found, make(seed, plan, generator=others))
    assert torch.equal(draws.get_state(), others.get_state())
    seen: list[Progress] = []
    keep = (torch.arange(8) != token).view(2, 4)
    make(seed, plan, latents=clip, keep=keep, callback=seen.append)
    assert [(progress.set, progress.sets) for progress in seen] == [(0, 1)]


def test_the_ends_of_a_mix_of_classes_are_the_classes() -> None:
    model, plan = tiny_mar(), {"sets": 2}
    others = LABELS.flip(0)
    wanted = make(0, plan)
    assert torch.equal(make(0, plan, mar.mix(model, LABELS, others, 0)), wanted)
    assert torch.equal(make(0, plan, mar.mix(model, others, LABELS, 1)), wanted)
    between = make(0, plan, mar.mix(model, LABELS, others, 0.5))
    assert not torch.equal(between, wanted)
    assert between.isfinite().all()


# --- orders and schedules ---


@given(seed=seeds, given_tokens=st.integers(0, 10), sizes=st.lists(st.integers(1, 9), min_size=1))
def test_a_schedule_predicts_each_position_once_but_those_given(
    seed: int, given_tokens: int, sizes: list[int]
) -> None:
    order = random_order(2, given_tokens + sum(sizes), generator=generator(seed))
    schedule = SetSchedule(order, tuple(sizes), given_tokens)
    assert torch.equal(schedule[0].known, order[:, :given_tokens])
    predicted = torch.cat([step.current for step in schedule], dim=1)
    assert torch.equal(predicted, order[:, given_tokens:])
    for step in schedule:
        parts = torch.cat([step.known, step.current, step.remaining], dim=1)
        assert torch.equal(parts, order)


# --- refusals ---

KEEP = torch.zeros(GRID, dtype=torch.bool)


@pytest.mark.parametrize(
    ("name", "came", "options"),
    [
        ("keep", "None", {"latents": latents(0)}),
        ("latents", "None", {"keep": KEEP}),
        ("latents", "(2, 2, 2, 4, 4)", {"latents": latents(0)[:, :, :2], "keep": KEEP}),
        ("latents", "list", {"latents": [0.0], "keep": KEEP}),
        ("keep", "(4, 5)", {"latents": latents(0), "keep": torch.zeros(4, 5).bool()}),
        ("keep", "(2, 4, 4)", {"latents": latents(0), "keep": torch.zeros(2, 4, 4).bool()}),
        ("keep", "(1, 2, 3, 4, 4)", {"latents": latents(0), "keep": KEEP.expand(1, 2, 3, 4, 4)}),
        ("keep", "torch.float32", {"latents": latents(0), "keep": KEEP.float()}),
        ("keep", "list", {"latents": latents(0), "keep": [True]}),
        ("keep", "all tokens", {"latents": latents(0), "keep": ~KEEP}),
        ("keep", "nothing kept of latent frame 0, all of 2",
         {"latents": latents(0), "keep": torch.stack([KEEP, KEEP, ~KEEP])}),
        ("keep", "nothing kept of latent frame 1, all of 2",
         {"latents": latents(0), "keep": torch.stack([~KEEP, KEEP, ~KEEP])}),
        ("context", "beside keep",
         {"latents": latents(0), "keep": KEEP, "context": latents(0)[:, :, :1]}),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_at_the_call(
    name: str, came: str, options: dict[str, Any], refuses: Any
) -> None:
    plan = nova.GenerationPlan(frames=FRAMES, sets=2, grid=GRID)
    with refuses(name, came):
        nova.stream(tiny_nova("rotary"), texts(2, 0), plan, **options)


@pytest.mark.parametrize(
    ("name", "came", "options"),
    [
        ("keep", "None", {"latents": torch.zeros(2, 2, 4, 8)}),
        ("latents", "None", {"keep": torch.zeros(2, 4).bool()}),
        ("latents", "(1, 2, 4, 8)",
         {"latents": torch.zeros(1, 2, 4, 8), "keep": torch.zeros(2, 4).bool()}),
        ("keep", "(4, 8)", {"latents": torch.zeros(2, 2, 4, 8), "keep": torch.zeros(4, 8).bool()}),
        ("keep", "all tokens",
         {"latents": torch.zeros(2, 2, 4, 8), "keep": torch.ones(2, 4).bool()}),
    ],
)  # fmt: skip
def test_mar_refuses_what_cannot_be_kept(
    name: str, came: str, options: dict[str, Any], refuses: Any
) -> None:
    with refuses(name, came):
        make(0, {"sets": 2}, **options)


def test_mixes_of_other_numbers_or_weights_are_refused(refuses: Any) -> None:
    network, model = tiny_nova("rotary"), tiny_mar()
    with refuses("others", "1 texts"):
        nova.mix(network, texts(2, 0), texts(1, 0), 0.5)
    with refuses("others", "(1,)"):
        mar.mix(model, LABELS, LABELS[:1], 0.5)
    with refuses("others", "4"):
        mar.mix(model, LABELS, LABELS + 2, 0.5)
    with refuses("labels", "(2, 3)"):
        make(0, {"sets": 2}, torch.zeros(2, 3))
    for weight in (-0.1, 1.1, float("nan"), "1", True, None):
        with refuses("weight", repr(weight)):
            nova.mix(network, texts(1, 0), texts(1, 1), weight)  # type: ignore[arg-type]
        with refuses("weight", repr(weight)):
            mar.mix(model, LABELS, LABELS, weight)  # type: ignore[arg-type]


def test_a_schedule_refuses_sizes_beside_what_is_given(refuses: Any) -> None:
    order = torch.arange(4)[None]
    for given_tokens, sizes in ((1, (4,)), (0, (3,)), (4, (1,))):
        with refuses("sizes", repr(sizes)):
            SetSchedule(order, sizes, given_tokens)
    with refuses("given", "-1"):
        SetSchedule(order, (5,), -1)
    with refuses("keep", "(3,)"):
        kept_first(order, torch.zeros(3).bool())
