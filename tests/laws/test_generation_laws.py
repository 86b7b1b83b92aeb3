"""The laws of generation and of a training step, on whole NOVAs of a few thousand weights."""

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_nova import VIDEOS, texts, tiny_nova
from torch import Tensor, nn
from torch.nn import functional

from contar.generation import Cancelled, Progress
from contar.ordering import TrainingMask, mask_by_order, random_order, truncated_normal_mask
from contar.tokenizers import patchify
from recipes import nova

# With every shape checked a generation takes 50 to 100 ms: the short profile draws few.
few = settings(max_examples=10 if settings().max_examples < 1000 else 1000)

# Of the largest value: batched kernels round differently from those of one sample (6e-8 each), and
# every frame is made of the ones before.
ROUNDING = 1e-5

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}
DDPM = {"_class_name": "DDPMScheduler", "clip_sample": False, "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "v_prediction"}  # fmt: skip
# What is reused from set to set belongs to a frame of a generation.
FASTER: dict[str, Any] = {"refresh": 2, "last_diffusion_steps": 1}

seeds = st.integers(0, 2**31)
grids = st.sampled_from([(4, 4), (2, 4), (4, 6), (6, 2)])


@dataclass(frozen=True)
class Case:
    """A generation: everything but its generator follows from these."""

    model: str
    frames: int
    sets: int
    grid: tuple[int, int]
    scale: float
    start: float | None
    renorm_over: Any
    solver: str
    batch: int
    context: int
    seed: int
    faster: bool

    @property
    def network(self) -> nova.Nova:
        return tiny_nova(self.model)

    @property
    def tokens(self) -> int:
        return self.grid[0] * self.grid[1]

    def plan(self, **changes: Any) -> nova.GenerationPlan:
        plan = nova.GenerationPlan(
            frames=self.frames,
            sets=self.sets,
            diffusion_steps=2,
            guidance=nova.Guidance(self.scale, self.start, 0.0, 0.5, self.renorm_over),
            scheduler={"flow": FLOW, "ddpm": DDPM}[self.solver],
            grid=self.grid,
            **(FASTER if self.faster else {}),
        )
        return replace(plan, **changes)

    def given_frames(self) -> Tensor | None:
        if not self.context:
            return None
        rows = [
            torch.randn(2, self.context, *self.grid, generator=generator(self.seed + row))
            for row in range(self.batch)
        ]
        return torch.stack(rows)

    def inputs(self) -> dict[str, Any]:
        return {
            "prompt_embeds": texts(self.batch, self.seed),
            "plan": self.plan(),
            "context": self.given_frames(),
            "generator": generator(self.seed),
        }

    def stream(self, **options: Any) -> Iterator[Tensor]:
        return nova.stream(self.network, **{**self.inputs(), **options})

    def generate(self, **options: Any) -> Tensor:
        return torch.stack(list(self.stream(**options)), dim=2)

    def order(self) -> Tensor:
        return random_order(self.batch, self.tokens, generator=generator(self.seed + 1))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cases(**fixed: Any) -> st.SearchStrategy[Case]:
    drawn: dict[str, Any] = {
        "model": st.sampled_from(VIDEOS),
        "frames": st.integers(1, 3),
        "sets": st.integers(1, 3),
        "grid": grids,
        "scale": st.sampled_from([1.0, 3.0]),
        "start": st.sampled_from([None, 1.0, 2.0]),
        "renorm_over": st.sampled_from(["tokens", "frame"]),
        "solver": st.sampled_from(["flow", "ddpm"]),
        "batch": st.integers(1, 2),
        "context": st.just(0),
        "seed": seeds,
        "faster": st.just(False),
    }
    for name, value in fixed.items():
        drawn[name] = value if isinstance(value, st.SearchStrategy) else st.just(value)
    made = st.builds(Case, **drawn)
    return made.map(lambda case: replace(case, context=min(case.context, case.frames)))


def close(x: Tensor, y: Tensor, rounding: float = ROUNDING) -> None:
    assert x.shape == y.shape
    assert x.isfinite().all()
    assert (x - y).abs().max() <= rounding * y.abs().max().clamp_min(1)


@contextlib.contextmanager
def watch(module: nn.Module, see: Callable[[tuple[Any, ...], Any], None]) -> Iterator[None]:
    """Call `see` with arguments and result of each call of a module."""
    handle = module.register_forward_hook(lambda _, arguments, out: see(arguments, out))
    try:
        yield
    finally:
        handle.remove()


class Record:
    """What the towers of a model were given and gave, call by call."""

    def __init__(self, model: nova.Nova) -> None:
        self.model = model
        self.features: list[Tensor] = []
        self.conditions: list[Tensor] = []
        self.visible: list[Tensor] = []
        self.z: list[Tensor] = []

    def __enter__(self) -> "Record":
        self.stack = contextlib.ExitStack()
        self.stack.enter_context(
            watch(self.model.temporal, lambda _, out: self.features.append(out))
        )
        self.stack.enter_context(watch(self.model.spatial, self._see_spatial))
        return self

    def _see_spatial(self, arguments: tuple[Any, ...], out: Tensor) -> None:
        self.conditions.append(arguments[1])
        self.visible.append(arguments[2])
        self.z.append(out)

    def __exit__(self, *_: object) -> None:
        self.stack.close()


# --- what a generation leaves alone ---


@few
@given(case=cases(context=st.integers(0, 3)))
def test_context_frames_come_back_unchanged(case: Case) -> None:
    latents = case.generate()
    assert latents.shape == (case.batch, 2, case.frames, *case.grid)
    assert latents.isfinite().all()
    given_frames = case.given_frames()
    if given_frames is not None:
        assert torch.equal(latents[:, :, : case.context], given_frames)


@few
@given(
    case=cases(context=st.integers(0, 2), frames=3, batch=2, faster=st.booleans()),
    ordered=st.booleans(),
)
def test_inputs_weights_and_global_random_state_are_the_same_before_and_after(
    case: Case, ordered: bool
) -> None:
    inputs = case.inputs()
    inputs["order"] = case.order() if ordered else None
    inputs["negative_prompt_embeds"] = texts(2, case.seed + 5)
    tensors = {name: x.clone() for name, x in inputs.items() if isinstance(x, Tensor)}
    plan = replace(inputs["plan"])
    weights = {name: x.clone() for name, x in case.network.state_dict().items()}
    attributes = {name: sorted(vars(module)) for name, module in case.network.named_modules()}
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    nova.generate(case.network, **inputs)
    assert torch.equal(torch.get_rng_state(), torch_state)
    for one, other in zip(np.random.get_state(), numpy_state, strict=True):
        assert np.array_equal(one, other)
    assert {name for name, x in inputs.items() if isinstance(x, Tensor)} == set(tensors)
    for name, x in tensors.items():
        assert torch.equal(inputs[name], x), name
    assert inputs["plan"] == plan
    now = case.network.state_dict()
    assert list(now) == list(weights)
    for name, x in weights.items():
        assert torch.equal(now[name], x), name
    assert {
        name: sorted(vars(module)) for name, module in case.network.named_modules()
    } == attributes
    assert all(x.grad is None for x in case.network.parameters())


@few
@given(case=cases(frames=st.integers(1, 2)))
def test_the_same_seed_gives_the_same_result_and_another_one_another(case: Case) -> None:
    torch.manual_seed(random.Random(case.seed).randrange(2**31))  # which must not matter
    first = case.generate()
    torch.manual_seed(0)
    assert torch.equal(case.generate(), first)
    other = case.generate(generator=generator(case.seed + 1))
    assert not torch.allclose(other, first)


# --- samples and generations that share a model ---


@few
@given(
    case=cases(batch=2, context=st.integers(0, 1), frames=st.integers(1, 2), faster=st.booleans())
)
def test_with_a_generator_each_a_sample_does_not_depend_on_its_neighbours(case: Case) -> None:
    def sample(rows: Sequence[int]) -> Tensor:
        given_frames = case.given_frames()
        return case.generate(
            prompt_embeds=texts(2, case.seed)[list(rows)],
            context=None if given_frames is None else given_frames[list(rows)],
            generator=[generator(case.seed + row) for row in rows],
        )

    together = sample([0, 1])
    for row in range(2):
        close(sample([row]), together[row : row + 1], 10 * ROUNDING)
    close(sample([1, 0]), together.flip(0), 10 * ROUNDING)


@few
@given(
    case=cases(context=st.integers(0, 1), faster=st.booleans()),
    other=cases(context=st.integers(0, 1), faster=st.booleans()),
    turns=st.lists(st.booleans(), max_size=6),
)
def test_two_generations_interleaved_frame_by_frame_equal_each_alone(
    case: Case, other: Case, turns: list[bool]
) -> None:
    other = replace(other, model=case.model)
    alone = [case.generate(), other.generate()]
    streams = [case.stream(), other.stream()]
    frames: list[list[Tensor]] = [[], []]
    for turn in [*turns, *[False] * case.frames, *[True] * other.frames]:
        frame = next(streams[turn], None)
        frames[turn] += [] if frame is None else [frame]
    for found, wanted in zip(frames, alone, strict=True):
        assert torch.equal(torch.stack(found, dim=2), wanted)


@few
@given(case=cases(), other=cases(), clips=st.sampled_from([(1, 4, 4), (2, 2, 4)]))
def test_other_lengths_grids_and_training_steps_in_between_change_nothing(
    case: Case, other: Case, clips: tuple[int, int, int]
) -> None:
    other = replace(other, model=case.model)
    first = case.generate()
    other.generate()
    latents = torch.randn(2, 2, *clips, generator=generator(case.seed))
    with torch.no_grad():
        nova.training_losses(
            case.network, latents, texts(2, 0), repeats=1, generator=generator(case.seed)
        )
    assert torch.equal(case.generate(), first)


# --- frames, sets, orders ---


@few
@given(case=cases(context=st.integers(0, 2), frames=st.integers(1, 3)))
def test_a_frame_is_yielded_as_soon_as_it_is_finished(case: Case) -> None:
    record: list[tuple[int, int]] = []
    sets = len(case.plan().sizes(case.tokens))

    def callback(progress: Progress) -> None:
        assert (progress.frames, progress.sets) == (case.frames, sets)
        record.append((progress.frame, progress.set))

    stream = case.stream(callback=callback)
    assert not record
    for t, _ in enumerate(stream):
        made = range(case.context, t + 1)
        assert record == [(frame, k) for frame in made for k in range(sets)]
    assert len(record) == sets * (case.frames - case.context)


@few
@given(case=cases(frames=st.integers(1, 2)))
def test_after_each_set_the_callback_sees_the_frame_so_far(case: Case) -> None:
    record: list[Progress] = []
    order = case.order()
    latents = case.generate(order=order, callback=record.append)
    tokens = patchify(latents.transpose(1, 2), 1)
    sizes = case.plan().sizes(case.tokens)
    for progress in record:
        known = order[:, : sum(sizes[: progress.set + 1])]
        shown = torch.zeros(case.batch, case.tokens, dtype=torch.bool).scatter(1, known, True)
        wanted = torch.where(shown[..., None], tokens[:, progress.frame], 0)
        assert torch.equal(progress.tokens, wanted)
        assert torch.equal(progress.current, known[:, sum(sizes[: progress.set]) :])


@few
@given(case=cases(frames=2, sets=3, faster=st.booleans()), stop=st.integers(0, 5))
def test_cancelling_ends_a_generation_between_two_sets_and_leaves_the_model_usable(
    case: Case, stop: int
) -> None:
    whole = case.generate()
    sets = len(case.plan().sizes(case.tokens))
    stop %= 2 * sets
    done: list[Progress] = []
    stream = case.stream(callback=done.append, cancel=lambda: len(done) == stop)
    frames = []
    with pytest.raises(Cancelled):
        frames.extend(stream)  # keeps what came before
    assert len(done) == stop
    assert len(frames) == stop // sets
    for t, frame in enumerate(frames):
        assert torch.equal(frame, whole[:, :, t])
    assert torch.equal(case.generate(), whole)


@few
@given(case=cases(context=st.integers(0, 1)))
def test_a_given_order_is_the_one_in_which_tokens_become_visible(case: Case) -> None:
    order = case.order()
    with Record(case.network) as record:
        case.generate(order=order)
    plan, seen = case.plan(), iter(record.visible)
    sizes = plan.sizes(case.tokens)
    for _ in range(case.context, case.frames):
        for k in range(len(sizes)):
            passes = 2 if plan.guidance.at((k + 1) / len(sizes)).scale > 1 else 1
            assert torch.equal(next(seen), order[:, : sum(sizes[:k])].repeat(passes, 1))
    assert next(seen, None) is None


@few
@given(case=cases())
def test_one_order_is_drawn_first_and_serves_all_frames(case: Case) -> None:
    draws = generator(case.seed)
    order = random_order(case.batch, case.tokens, generator=draws)
    close(case.generate(), case.generate(order=order, generator=draws), 0.0)


@few
@given(case=cases(frames=3), count=st.integers(1, 3))
def test_a_generation_continued_from_its_first_frames_goes_on_as_it_did(
    case: Case, count: int
) -> None:
    order, draws = case.order(), generator(case.seed)
    frames, state = [], draws.get_state()
    with Record(case.network) as before:
        for frame in case.stream(order=order, generator=draws):
            frames.append(frame)
            state = draws.get_state() if len(frames) == count else state
    latents = torch.stack(frames, dim=2)
    draws.set_state(state)
    context = latents[:, :, :count].clone()
    with Record(case.network) as after:
        continued = case.generate(context=context, order=order, generator=draws)
    assert torch.equal(continued, latents)
    sets = len(case.plan().sizes(case.tokens))
    for found, wanted in zip(after.conditions, before.conditions[count * sets :], strict=True):
        assert torch.equal(found, wanted)


@few
@given(case=cases(frames=st.integers(1, 3)), extra=st.integers(0, 2), pinned=st.integers(0, 4))
def test_a_window_of_at_least_all_frames_is_no_window(case: Case, extra: int, pinned: int) -> None:
    plan = case.plan(window=case.frames + extra, pinned=pinned)
    close(case.generate(plan=plan), case.generate())


@few
@given(case=cases(frames=3, solver="flow"))
def test_a_window_of_one_frame_that_pins_none_forgets_the_frame_before_the_last(case: Case) -> None:
    """Frame 1 is given: then frame 2 does not depend on frame 0, the adapter's anchor apart."""
    case = replace(case, model=case.model.split(",")[0].replace("widths", "absolute"), context=2)
    context = case.given_frames()
    assert context is not None
    other = context.clone()
    other[:, :, 0] += 1
    plan = case.plan(window=1, pinned=0)
    close(case.generate(plan=plan, context=other)[:, :, 2], case.generate(plan=plan)[:, :, 2])
    with_all = case.generate(context=other)[:, :, 2]
    assert not torch.allclose(with_all, case.generate()[:, :, 2])


# --- the adapter within the whole ---


def adapted(model: nova.Nova, features: Tensor, first: Tensor) -> Tensor:
    """A later frame's condition, written out."""
    adapter = model.adapter
    if adapter is None:
        return features
    hidden = functional.silu(features)
    hidden = hidden if adapter.down is None else hidden @ adapter.down.weight.T
    scale, shift = (hidden @ adapter.up.weight.T + adapter.up.bias).chunk(2, dim=-1)
    return first * (1 + scale) + shift


@few
@given(case=cases(frames=st.integers(1, 3), context=st.integers(0, 1)))
@torch.no_grad()
def test_in_generation_the_adapter_leaves_frame_0_as_it_is_and_changes_the_later_ones(
    case: Case,
) -> None:
    with Record(case.network) as record:
        case.generate()
    sets = len(case.plan().sizes(case.tokens))
    features = [out[:, 0] for out in record.features]
    assert len(features) == case.frames
    for i, condition in enumerate(record.conditions):
        t = case.context + i // sets
        if t == 0:
            assert torch.equal(condition, features[0][: len(condition)])
        else:
            wanted = adapted(case.network, features[t], features[0])
            close(condition, wanted[: len(condition)])


@few
@given(model=st.sampled_from(VIDEOS), frames=st.integers(1, 3), seed=seeds)
@torch.no_grad()
def test_in_training_the_adapter_leaves_frame_0_as_it_is_and_changes_the_later_ones(
    model: str, frames: int, seed: int
) -> None:
    latents = torch.randn(2, 2, frames, 4, 4, generator=generator(seed))
    with Record(tiny_nova(model)) as record:
        nova.training_losses(
            tiny_nova(model), latents, texts(2, seed), repeats=1, generator=generator(seed)
        )
    (features,), (conditions,) = record.features, record.conditions
    conditions = conditions.unflatten(0, (2, frames))
    assert torch.equal(conditions[:, 0], features[:, 0])
    for t in range(1, frames):
        close(conditions[:, t], adapted(tiny_nova(model), features[:, t], features[:, 0]))


# --- training ---


def losses(model: str, latents: Tensor, seed: int, **options: Any) -> nova.FrameLosses:
    batch = len(latents)
    given = {"repeats": 2, "generator": generator(seed), **options}
    with torch.no_grad():
        return nova.training_losses(tiny_nova(model), latents, texts(batch, seed), **given)


models = st.sampled_from([*VIDEOS, "image"])


@few
@given(model=models, frames=st.integers(1, 3), grid=grids, seed=seeds)
def test_a_clip_of_one_frame_has_one_loss_and_a_longer_one_two_that_add_up(
    model: str, frames: int, grid: tuple[int, int], seed: int
) -> None:
    frames = 1 if model == "image" else frames
    latents = torch.randn(2, 2, frames, *grid, generator=generator(seed))
    found = losses(model, latents, seed)
    if frames == 1:
        assert found.later is None
        assert torch.equal(found.total, found.first)
    else:
        assert found.later is not None
        assert torch.equal(found.total, found.first + found.later)
        assert found.later > 0
    assert found.first > 0
    assert found.total.isfinite()
    assert torch.equal(losses(model, latents, seed).total, found.total)


@few
@given(model=st.sampled_from(VIDEOS), frames=st.integers(1, 3), t=st.integers(0, 2), seed=seeds)
def test_a_condition_depends_on_earlier_frames_and_on_no_hidden_token_and_no_later_frame(
    model: str, frames: int, t: int, seed: int
) -> None:
    t %= frames
    draws = generator(seed)
    latents = torch.randn(2, 2, frames, 4, 4, generator=draws)
    mask = truncated_normal_mask(2 * frames, 16, generator=draws)
    changed = torch.randn(latents.shape, generator=draws)
    hidden = mask.hidden.unflatten(0, (2, frames))[:, t].unflatten(1, (4, 4))[:, None]
    other = latents.clone()
    other[:, :, t] = torch.where(hidden, changed[:, :, t], latents[:, :, t])
    other[:, :, t + 1 :] = changed[:, :, t + 1 :]
    z = []
    for clip in (latents, other):
        with Record(tiny_nova(model)) as record:
            losses(model, clip, seed, mask=mask)
        z.append(record.z[0].unflatten(0, (2, frames)))
    assert torch.equal(z[0][:, : t + 1], z[1][:, : t + 1])
    if t + 1 < frames:
        assert not torch.allclose(z[0][:, t + 1], z[1][:, t + 1])


@few
@given(model=models, batch=st.integers(1, 3), grid=grids, seed=seeds)
def test_a_share_of_hidden_tokens_for_each_sample_gives_the_losses_of_each_alone(
    model: str, batch: int, grid: tuple[int, int], seed: int
) -> None:
    draws = generator(seed)
    latents = torch.randn(batch, 2, 1, *grid, generator=draws)
    mask = truncated_normal_mask(
        batch, grid[0] * grid[1], low=0.2, mean=0.6, ratio="sample", generator=draws
    )
    counts = mask.hidden.sum(dim=1).tolist()
    noise = torch.randn(2, sum(counts), 2, generator=draws)
    index = torch.randint(1000, (2, sum(counts)), generator=draws)
    together = losses(model, latents, seed, mask=mask, noise=noise, index=index)
    total, start = 0.0, 0
    for row, count in enumerate(counts):
        ids = mask.visible_ids[row]
        ids = ids if mask.padding_mask is None else ids[~mask.padding_mask[row]]
        with torch.no_grad():
            alone = nova.training_losses(
                tiny_nova(model),
                latents[row : row + 1],
                texts(batch, seed)[row : row + 1],
                repeats=2,
                mask=TrainingMask(mask.hidden[row : row + 1], ids[None]),
                noise=noise[:, start : start + count],
                index=index[:, start : start + count],
            )
        total += float(alone.total) * 2 * count
        start += count
    # The 1e-5 beside each number of losses, and the rounding of a sum of at most 150.
    assert abs(float(together.total) - total / (2 * sum(counts))) <= 1e-4 * total


@few
@given(model=st.sampled_from(VIDEOS), frames=st.integers(1, 3), seed=seeds)
def test_the_losses_are_the_weighted_errors_of_hidden_tokens(
    model: str, frames: int, seed: int
) -> None:
    draws = generator(seed)
    latents = torch.randn(2, 2, frames, 4, 4, generator=draws)
    visible = torch.randint(16, (2 * frames,), generator=draws)
    mask = mask_by_order(random_order(2 * frames, 16, generator=draws), visible)
    noise = torch.randn(3, int(mask.hidden.sum()), 2, generator=draws)
    index = torch.randint(1000, noise.shape[:2], generator=draws)
    network = tiny_nova(model)
    with Record(network) as record:
        found = losses(model, latents, seed, repeats=3, mask=mask, noise=noise, index=index)
    sums = [0.0, 0.0]
    sigma = 1 - torch.arange(1000) / 1000  # of the flow with shift 1: the timesteps 1000, 999, ...
    with torch.no_grad():
        for i, (row, token) in enumerate(mask.hidden.nonzero().tolist()):
            sample, t = divmod(row, frames)
            clean = latents[sample, :, t].flatten(1)[:, token]
            condition = network.head.network.condition(record.z[0][row, token][None])
            for r in range(3):
                level = sigma[index[r, i]]
                noisy = (1 - level) * clean + level * noise[r, i]
                made = network.head.network(noisy[None], level[None] * 1000, condition)[0]
                error = (made - (noise[r, i] - clean)).square().mean()
                sums[t > 0] += float(error) / noise.shape[:2].numel()
    assert abs(float(found.first) - frames * sums[0]) <= 1e-4 * frames * sums[0]
    if frames > 1:
        later = frames / (frames - 1) * sums[1]
        assert found.later is not None
        assert abs(float(found.later) - later) <= 1e-4 * later


def test_what_is_yielded_is_the_callers_to_change() -> None:
    model, text = tiny_nova(VIDEOS[0]), torch.randn(1, 2, tiny_nova(VIDEOS[0]).sizes.text_width)
    context = torch.randn(1, model.sizes.channels, 1, 4, 4)
    given = context.clone()
    plan = nova.GenerationPlan(frames=3, sets=2, diffusion_steps=2, grid=(4, 4))

    def run(change: bool) -> list[Tensor]:
        options: Any = {"generator": torch.Generator().manual_seed(0), "context": context}
        if change:
            options["callback"] = lambda now: (now.tokens.zero_(), now.current.zero_())
        frames = []
        for frame in nova.stream(model, text, plan, **options):
            frames.append(frame.clone())
            if change:
                frame.zero_()
        return frames

    for ours, alone in zip(run(True), run(False), strict=True):
        assert torch.equal(ours, alone)
    assert torch.equal(context, given)
