"""The laws of faster generation: neutral options change nothing, reuse is exact where it can be."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_mar import PLAN as MAR_PLAN
from tiny_mar import tiny_mar
from tiny_nova import texts, tiny_nova
from torch import Tensor, nn

from contar.attention import (
    BlockLayout,
    KVCache,
    Positions,
    TokenCache,
    dense_mask,
    grid_coordinates,
    rotary_table,
    sincos_2d,
)
from contar.backbones import SpatialMemory, SpatialTower
from contar.diffusion import SamplerTable
from contar.generation import GenerationPlan, Progress, fast_changes
from recipes import mar, nova

few = settings(max_examples=min(settings().max_examples, 20))
TOKENS, VALUES, PREFIX, WIDTH = 9, 3, 2, 32
seeds = st.integers(0, 2**31)


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tower(encoder: int, decoder: int, seed: int = 0) -> SpatialTower:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        halves: Any = {"encoder": (encoder, 64, 2), "decoder": (decoder, WIDTH, 1)}
        return SpatialTower(VALUES, WIDTH, **halves).eval()


def frame(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens, a prefix and an order for two samples."""
    g = draws(seed)
    order = torch.stack([torch.randperm(TOKENS, generator=g) for _ in range(2)])
    shape = (2, PREFIX, WIDTH)
    return torch.randn(2, TOKENS, VALUES, generator=g), torch.randn(shape, generator=g), order


# --- the memory of a spatial tower ---


@few
@given(seed=seeds, visible=st.integers(0, TOKENS - 1))
@torch.no_grad()
def test_filling_a_memory_changes_no_result(seed: int, visible: int) -> None:
    model = tower(2, 2)
    tokens, prefix, order = frame(seed)
    known, rows = order[:, :visible], order[:, visible:]
    for wanted in (None, rows):
        memory = model.allocate_memory(2, TOKENS, PREFIX)
        found = model(tokens, prefix, known, query_ids=wanted, memory=memory)
        torch.testing.assert_close(found, model(tokens, prefix, known, query_ids=wanted))
        assert memory.full
        assert memory.seen == visible


PLACES = {
    "none": (Positions(), Positions()),
    "added": tuple(Positions(add=sincos_2d((3, 3), width)) for width in (64, WIDTH)),
    "rotary": tuple(
        Positions(rope=rotary_table(grid_coordinates(1, 3, 3), width)) for width in (32, 32)
    ),
}


@pytest.mark.parametrize("places", PLACES)
@few
@given(seed=seeds, visible=st.integers(0, TOKENS - 1))
@torch.no_grad()
def test_where_nothing_became_visible_a_memory_gives_what_the_whole_tower_gives(
    places: str, seed: int, visible: int
) -> None:
    model = tower(2, 3)
    tokens, prefix, order = frame(seed)
    known, rows = order[:, :visible], order[:, visible:]
    options: Any = {"positions": PLACES[places], "query_ids": rows}
    options["memory"] = model.allocate_memory(2, TOKENS, PREFIX)
    whole = model(tokens, prefix, known, **options)
    again = model(tokens, prefix, known, **options)
    torch.testing.assert_close(again, whole, atol=1e-5, rtol=1e-5)


@few
@given(seed=seeds, visible=st.integers(0, 7))
@torch.no_grad()
def test_where_nothing_became_visible_mars_memory_gives_what_the_whole_model_gives(
    seed: int, visible: int
) -> None:
    model, labels = tiny_mar(), torch.tensor([0, 2])
    order = torch.stack([torch.randperm(8, generator=draws(seed + i)) for i in range(2)])
    tokens = torch.randn(2, 8, 8, generator=draws(seed))
    known, rows = order[:, :visible], order[:, visible:]
    memory = model.allocate_memory(2)
    plain = model(tokens, labels, known, query_ids=rows)
    for _ in range(2):
        found = model(tokens, labels, known, query_ids=rows, memory=memory)
        torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)


def check_block_causal(
    encoder: nn.ModuleList, length: int, visible: int, find: Any, memory: SpatialMemory, ends: Any
) -> None:
    """Compare with a pass whose encoder half is under a mask.

    Tokens of a set see those of earlier sets and each other. One block of the decoder half makes
    keys and values of its inputs alone, so all else is exact.
    """
    ends = sorted({min(end, visible) for end in ends})
    found = [find(end, memory=memory) for end in ends][-1]
    sets = (length + ends[0], *(b - a for a, b in pairwise(ends)))
    masked = {"mask": dense_mask(BlockLayout(sets))}
    handles = [
        block.register_forward_pre_hook(
            lambda _, x, named: (x, {**named, **masked}), with_kwargs=True
        )
        for block in encoder
    ]
    wanted = find(ends[-1])
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


some_ends = st.lists(st.integers(0, TOKENS - 1), min_size=2, max_size=4)


@pytest.mark.parametrize("places", PLACES)
@few
@given(seed=seeds, ends=some_ends)
@torch.no_grad()
def test_with_a_memory_the_encoder_half_is_block_causal_over_the_sets(
    places: str, seed: int, ends: list[int]
) -> None:
    model = tower(2, 1)
    tokens, prefix, order = frame(seed)

    def find(end: int, **options: Any) -> Tensor:
        options |= {"positions": PLACES[places], "query_ids": order[:, end:]}
        return model(tokens, prefix, order[:, :end], **options)

    memory = model.allocate_memory(2, TOKENS, PREFIX)
    check_block_causal(model.encoder, PREFIX, TOKENS - 1, find, memory, ends)


@few
@given(seed=seeds, ends=some_ends)
@torch.no_grad()
def test_with_a_memory_mars_encoder_is_block_causal_over_the_sets(
    seed: int, ends: list[int]
) -> None:
    model = tiny_mar(encoder=mar.Tower(2, 16, 2), decoder=mar.Tower(1, 24, 2))
    order = torch.stack([torch.randperm(8, generator=draws(seed + i)) for i in range(2)])
    tokens, labels = torch.randn(2, 8, 8, generator=draws(seed)), torch.tensor([0, 2])

    def find(end: int, **options: Any) -> Tensor:
        return model(tokens, labels, order[:, :end], query_ids=order[:, end:], **options)

    check_block_causal(model.spatial.encoder, 2, 7, find, model.allocate_memory(2), ends)


@torch.no_grad()
def test_old_tokens_do_not_look_at_new_ones() -> None:
    """Two new tokens see each other and the old; what was computed before is not computed again."""
    model = tower(1, 1)
    tokens, prefix, order = frame(0)
    memory = model.allocate_memory(2, TOKENS, PREFIX)
    model(tokens, prefix, order[:, :3], memory=memory)
    before = memory.encoder._memory[..., : PREFIX + 3, :].clone()
    rows = order[:, 5:]
    counted: list[int] = []
    handle = model.encoder[0].register_forward_pre_hook(lambda _, x: counted.append(x[0].shape[1]))
    other = model.decoder[0].register_forward_pre_hook(lambda _, x: counted.append(x[0].shape[1]))
    found = model(tokens, prefix, order[:, :5], query_ids=rows, memory=memory)
    handle.remove()
    other.remove()
    assert counted == [2, 2 + rows.shape[1]]
    assert torch.equal(memory.encoder._memory[..., : PREFIX + 3, :], before)
    assert not torch.allclose(found, model(tokens, prefix, order[:, :5], query_ids=rows), atol=1e-4)


@torch.no_grad()
def test_memories_of_other_towers_and_of_more_tokens_are_refused(refuses: Any) -> None:
    model, (tokens, prefix, order) = tower(1, 1), frame(0)
    with refuses("memory", "'layers': 2"):
        model(tokens, prefix, order[:, :2], memory=tower(1, 2).allocate_memory(2, TOKENS, PREFIX))
    with refuses("memory", "KVCache"):
        memory: Any = KVCache(layers=1, batch=2, heads=2, width=32, capacity=11)
        model(tokens, prefix, order[:, :2], memory=memory)
    for wrong in ({"batch": 3}, {"tokens": 8}, {"prefix": 1}):
        sizes = {"batch": 2, "tokens": TOKENS, "prefix": PREFIX, **wrong}
        with refuses("memory"):
            model(tokens, prefix, order[:, :2], memory=model.allocate_memory(**sizes))
    memory = model.allocate_memory(2, TOKENS, PREFIX)
    with refuses("memory", "padding_mask"):
        filled = torch.zeros(2, 2, dtype=torch.bool)
        model(tokens, prefix, order[:, :2], memory=memory, padding_mask=filled)
    with refuses("memory", "checkpoint"):
        model(tokens, prefix, order[:, :2], memory=memory, checkpoint=True)
    model(tokens, prefix, order[:, :2], memory=memory)
    with refuses("visible_ids", "1 tokens", "2"):
        model(tokens, prefix, order[:, :1], query_ids=order[:, 2:], memory=memory)
    with refuses("query_ids", "None"):
        model(tokens, prefix, order[:, :3], memory=memory)
    with refuses("query_ids", "visible"):
        model(tokens, prefix, order[:, :3], query_ids=order[:, 2:], memory=memory)
    for backend, grad in (("nonsense", False), (None, True)):
        fresh = model.allocate_memory(2, TOKENS, PREFIX)
        with torch.set_grad_enabled(grad), refuses("memory" if grad else "backend"):
            model(tokens, prefix, order[:, :2], memory=fresh, backend=backend)
        found = model(tokens, prefix, order[:, :2], memory=fresh)  # as if nothing had been
        torch.testing.assert_close(found, model(tokens, prefix, order[:, :2]))


def test_a_token_cache_keeps_each_token_as_it_was_written_last() -> None:
    cache = TokenCache(layers=2, batch=2, heads=1, width=3, tokens=4)
    assert cache.fits == {"layers": 2, "batch": 2, "heads": 1, "width": 3, "tokens": 4}
    whole = torch.randn(2, 2, 1, 4, 3, generator=draws(0))
    cache.place(None)
    for layer in (0, 1):
        cache.write(layer, *whole)
    ids = torch.tensor([[3, 0], [1, 2]])
    cache.place(ids)
    part = torch.randn(2, 2, 1, 2, 3, generator=draws(1))
    keys, values = cache.write(1, *part)
    for found, old, new in ((keys, whole[0], part[0]), (values, whole[1], part[1])):
        expected = old.clone()
        for row in (0, 1):
            expected[row, :, ids[row]] = new[row]
        assert torch.equal(found, expected)
    untouched = cache.write(0, *part)[0]
    assert not torch.equal(untouched, whole[0])


def test_a_token_cache_refuses_what_does_not_fit(refuses: Any) -> None:
    sizes: dict[str, Any] = {"layers": 1, "batch": 2, "heads": 1, "width": 3, "tokens": 4}
    for name in sizes:
        with refuses(name, "0"):
            TokenCache(**{**sizes, name: 0})
    with refuses("dtype"):
        TokenCache(**sizes, dtype=torch.int64)
    cache = TokenCache(**sizes)
    with refuses("ids", "nothing is cached yet"):
        cache.place(torch.zeros(2, 1, dtype=torch.int64))
    with refuses("ids"):
        cache.place(torch.zeros(3, 1, dtype=torch.int64))
    cache.place(None)
    k = torch.zeros(2, 1, 4, 3)
    with refuses("layer", "1"):
        cache.write(1, k, k)
    with refuses("v"):
        cache.write(0, k, k[:, :, :3])


# --- options of the plan, in whole generations ---


def of_nova(name: str = "absolute, adapter", /, *, callback: Any = None, **changes: Any) -> Tensor:
    options: Any = {"frames": 2, "sets": 4, "diffusion_steps": 4, "guidance": nova.Guidance(3.0)}
    plan = nova.GenerationPlan(**{**options, **changes})
    options = {"generator": draws(0), "callback": callback}
    return nova.generate(tiny_nova(name), texts(2, 0), plan, **options)


def of_mar(*, callback: Any = None, **changes: Any) -> Tensor:
    plan, labels = replace(MAR_PLAN, **changes), torch.tensor([0, 2])
    return mar.generate(tiny_mar(), labels, plan, generator=draws(0), callback=callback)


NEUTRAL: list[dict[str, Any]] = [
    {"last_diffusion_steps": 4},
    {"guidance": nova.Guidance(3.0, interval=(0.0, 1.0), ceiling=1000.0)},
]


@pytest.mark.parametrize("changes", NEUTRAL)
def test_an_option_at_its_neutral_value_changes_nothing(changes: dict[str, Any]) -> None:
    assert torch.equal(of_nova(**changes), of_nova())
    if "guidance" in changes:
        changes = {"guidance": replace(changes["guidance"], start=1.0)}
    assert torch.equal(of_mar(**changes), of_mar())


@pytest.mark.parametrize("generate", [of_nova, of_mar])
def test_in_one_set_all_options_change_nothing(generate: Any) -> None:
    """The one set is the first, and the order within it tells nothing."""
    every: dict[str, Any] = {
        "last_diffusion_steps": 1, "refresh": 3, "order": "checkerboard",
    }  # fmt: skip
    torch.testing.assert_close(generate(sets=1, **every), generate(sets=1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"last_diffusion_steps": 1},
        {"refresh": 2},
        {"order": "checkerboard"},
        {"order": "checkerboard", "filling_sets": 1},
    ],
)
@pytest.mark.parametrize("generate", [of_nova, of_mar])
def test_every_other_value_makes_another_generation_of_finite_numbers(
    generate: Any, changes: dict[str, Any]
) -> None:
    found = generate(**changes)
    assert found.isfinite().all()
    assert not torch.equal(found, generate())
    assert torch.equal(found, generate(**changes))


def test_all_options_of_a_plan_together_make_finite_latents() -> None:
    every: dict[str, Any] = {
        "last_diffusion_steps": 2, "refresh": 2, "order": "checkerboard",
        "filling_sets": 1,
    }  # fmt: skip
    assert of_nova(**every).isfinite().all()
    assert of_nova("rotary, adapter", **every).isfinite().all()
    assert of_nova("widths", **every).isfinite().all()
    assert of_mar(**every, guidance=mar.Guidance(3.0, interval=(0.3, 0.9))).isfinite().all()


@pytest.mark.parametrize(("generate", "grid"), [(of_nova, (4, 6)), (of_mar, (2, 4))])
def test_a_checkerboard_fills_the_cells_of_one_colour_first(
    generate: Any, grid: tuple[int, int]
) -> None:
    seen: list[Progress] = []
    own = {} if generate is of_mar else {"grid": grid}
    board: dict[str, Any] = {"order": "checkerboard", "sets": 3, "filling_sets": 1}
    generate(**board, **own, callback=seen.append)
    places = torch.arange(grid[0] * grid[1])
    first = (places // grid[1] + places % grid[1]) % 2 == 0
    for progress in seen:
        filled = progress.tokens.any(dim=2)
        if progress.set > 0:
            assert torch.equal(filled, (first | torch.tensor(progress.set == 2)).expand(2, -1))


def test_outside_its_interval_of_sets_guidance_is_not_there() -> None:
    none = of_nova(guidance=nova.Guidance(1.0))
    never = of_nova(guidance=nova.Guidance(3.0, interval=(0.0, 0.1)))
    torch.testing.assert_close(never, none, atol=1e-5, rtol=1e-5)
    late = of_nova(guidance=nova.Guidance(3.0, interval=(0.6, 1.0)))
    assert not torch.allclose(late, none)


class Counted:
    """How many rows of a batch the spatial tower of a model was called with, call by call."""

    def __init__(self, model: nova.Nova) -> None:
        self.model, self.rows = model, []

    def __enter__(self) -> "Counted":
        self.handle = self.model.spatial.register_forward_pre_hook(
            lambda _, args: self.rows.append(len(args[0]))
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.remove()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [2, 2, 2, 2]),
        ({"guidance": nova.Guidance(3.0, interval=(0.5, 0.75))}, [1, 2, 2, 1]),
        ({"guidance": nova.Guidance(3.0, start=1.0)}, [2, 2, 2, 2]),
        ({"guidance": nova.Guidance(3.0, start=0.0, interval=(0.0, 0.5))}, [1, 2, 1, 1]),
    ],
)
def test_a_set_takes_the_passes_that_it_needs_and_no_more(
    changes: dict[str, Any], expected: list[int]
) -> None:
    model = tiny_nova("image")
    plan = nova.GenerationPlan(
        sets=4, diffusion_steps=1, **{"guidance": nova.Guidance(3.0), **changes}
    )
    with Counted(model) as counted:
        nova.generate(model, texts(1, 0), plan, generator=draws(0))
    assert counted.rows == expected


def test_a_refresh_computes_everything_again() -> None:
    model = tiny_nova("image")
    computed: list[int] = []
    handle = model.spatial.decoder[0].register_forward_pre_hook(
        lambda _, args: computed.append(args[0].shape[1])
    )
    options: Any = {"sets": 4, "diffusion_steps": 1, "curve": "uniform"}
    plan = nova.GenerationPlan(guidance=nova.Guidance(1.0), refresh=3, **options)
    nova.generate(model, texts(1, 0), plan, generator=draws(0))
    handle.remove()
    whole = 4 + 16  # a prefix of 2 x 2, and the frame
    assert computed == [whole, 4 + 4, 4 + 4, whole]


DDPM = {"_class_name": "DDPMScheduler", "clip_sample": False}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers
@pytest.mark.parametrize("scheduler", [DDPM, FLOW])
def test_fast_changes_make_a_plan_that_generates(scheduler: dict[str, Any]) -> None:
    assert of_nova(**fast_changes(scheduler, 6)).isfinite().all()


def test_the_fast_solver_of_a_flow_knows_its_shift() -> None:
    shifted, plain = (
        SamplerTable.from_config(fast_changes(config, 6)["scheduler"], 4)
        for config in (FLOW, {**FLOW, "shift": 1.0})
    )
    own = SamplerTable.from_config(FLOW, 1000).timestep
    for timestep in shifted.timestep[1:]:
        assert min(abs(timestep - t) for t in own) < 2
    assert all(a > b for a, b in zip(shifted.timestep[1:], plain.timestep[1:], strict=True))


def test_the_fast_solver_of_a_flow_is_the_same_from_whichever_solver_of_it() -> None:
    solver = fast_changes(FLOW, 6)["scheduler"]
    again = fast_changes(solver, 6)["scheduler"]
    assert SamplerTable.from_config(again, 4) == SamplerTable.from_config(solver, 4)


def test_fast_changes_refuse_what_no_such_solver_reads(refuses: Any) -> None:
    for config in ({}, {**DDPM, "clip_sample": True}):
        with refuses("scheduler"):
            fast_changes(config, 6)
    with refuses("scheduler", "learned_range"):
        fast_changes({**DDPM, "variance_type": "learned_range"}, 6)
    with refuses("scheduler", "shift_terminal=0.1"):
        fast_changes({**FLOW, "shift_terminal": 0.1}, 6)
    with refuses("steps", "0"):
        fast_changes(FLOW, 6, steps=0)
    with refuses("sets", "0"):
        fast_changes(FLOW, 0)


def test_fast_changes_take_a_quarter_of_the_sets_and_at_least_four_if_there_are() -> None:
    assert [fast_changes(FLOW, sets)["sets"] for sets in (1, 3, 4, 9, 16, 64)] == [
        1,
        3,
        4,
        4,
        4,
        16,
    ]


def test_an_order_beside_a_plan_that_names_another_is_refused(refuses: Any) -> None:
    order = torch.arange(16)[None]
    plan = nova.GenerationPlan(sets=2, order="checkerboard")
    with refuses("order", "checkerboard"):
        nova.generate(tiny_nova("image"), texts(1, 0), plan, order=order)
    with refuses("order", "checkerboard"):
        changed = replace(MAR_PLAN, order="checkerboard")
        mar.generate(tiny_mar(), torch.tensor([0]), changed, order=torch.arange(8)[None])


@pytest.mark.parametrize(
    ("name", "sets", "filling"), [("sets", 20, 2), ("filling_sets", 12, 9), ("sets", 17, 8)]
)
def test_more_sets_than_a_colour_has_tokens_are_refused(
    name: str, sets: int, filling: int, refuses: Any
) -> None:
    plan = GenerationPlan(sets=sets, order="checkerboard", filling_sets=filling)
    with refuses(name):
        plan.sizes(16)


# --- plans ---


@given(
    tokens=st.integers(4, 300),
    sets=st.integers(2, 64),
    filling=st.integers(1, 63),
)
def test_a_checkerboard_s_sets_make_one_colour_and_then_the_other(
    tokens: int, sets: int, filling: int
) -> None:
    filling = min(filling, sets - 1, tokens // 2)
    sets = min(sets, filling + (tokens + 1) // 2)
    plan = GenerationPlan(sets=sets, order="checkerboard", filling_sets=filling)
    sizes = plan.sizes(tokens)
    assert sum(sizes) == tokens
    assert (tokens + 1) // 2 in {sum(sizes[:k]) for k in range(len(sizes) + 1)}


def test_sets_around_what_is_kept_make_what_is_left_of_one_colour_and_then_of_the_other() -> None:
    plan = GenerationPlan(sets=3, order="checkerboard", filling_sets=1, curve="uniform")
    keep = torch.zeros(2, 4, dtype=torch.bool)
    assert plan.sizes_around(keep) == (2, 2, 4)
    keep[0, 1] = True  # of the second colour, made in the filling set
    assert plan.sizes_around(keep) == (2, 2, 3)
    keep[0, 0] = keep[1, 1] = True
    assert plan.sizes_around(keep) == (1, 1, 3)


@given(seed=seeds, rows=st.integers(1, 6), columns=st.integers(1, 6))
def test_a_plan_draws_the_order_it_names(seed: int, rows: int, columns: int) -> None:
    grid = (rows, columns)
    order = GenerationPlan(order="checkerboard").draw_order(2, grid, generator=draws(seed))
    colour = (order // columns + order % columns) % 2
    assert torch.equal(colour, colour.sort(dim=1).values)
    plain = GenerationPlan().draw_order(2, grid, generator=draws(seed))
    assert torch.equal(plain.sort(dim=1).values, order.sort(dim=1).values)


@given(
    first=st.integers(1, 100),
    last=st.integers(1, 100) | st.none(),
    sets=st.integers(1, 64),
)
def test_diffusion_steps_fall_evenly_from_the_first_set_to_the_last(
    first: int, last: int | None, sets: int
) -> None:
    last = None if last is None else min(first, last)
    plan = GenerationPlan(diffusion_steps=first, last_diffusion_steps=last)
    steps: Any = plan.steps(sets, own=7)
    assert len(steps) == sets
    assert steps[0] == first
    assert sets == 1 or steps[-1] == (last or first)
    falls = [a - b for a, b in pairwise(steps)]
    assert all(fall >= 0 for fall in falls)
    assert not falls or max(falls) - min(falls) <= 1
