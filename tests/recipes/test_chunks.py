"""Chunks: a long video is short ones, each made from the last frames of the one before."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contar.attention import KVCache
from recipes import nova

TOWER = nova.Tower(1, 32, 1)
SIZES = nova.NovaConfig(
    temporal=TOWER, encoder=TOWER, decoder=TOWER,
    head={"name": "flow", "width": 16, "depth": 1}, text_width=6,
    text_length=3, text_rows=4, channels=2, patch=1, latent=(4, 4), frames=4, adapter=2,
)  # fmt: skip
TEXT = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(1))
PLAN = nova.GenerationPlan(sets=2, diffusion_steps=2, guidance=nova.Guidance(2.0))


@pytest.fixture(scope="module", params=["absolute", "rotary"])
def model(request) -> nova.Nova:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nova.build(replace(SIZES, positions=request.param)).eval()
        torch.nn.init.normal_(model.head.network.out.weight, std=0.1)
        assert model.adapter is not None
        torch.nn.init.normal_(model.adapter.up.weight, std=0.1)
        return model


def make(model, generator, context=None, *, order=None, **plan):
    options = {"generator": generator, "context": context, "order": order, "fps": 8.0}
    return nova.generate(model, TEXT, replace(PLAN, **plan), **options)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)


@settings(max_examples=8 if settings().max_examples < 1000 else 1000)
@given(st.data())
def test_chunks_are_generations_one_after_the_other_from_one_generator(model, data):
    chunk = data.draw(st.integers(2, 4), "chunk")
    overlap = data.draw(st.integers(1, chunk - 1), "overlap")
    frames = data.draw(st.integers(chunk, 3 * chunk), "frames")
    whole = make(model, seeded(), frames=frames, chunk=chunk, overlap=overlap)
    generator, made = seeded(), torch.zeros(2, 2, 0, 4, 4)
    while made.shape[2] < frames:
        count = chunk if not made.shape[2] else min(chunk, frames - made.shape[2] + overlap)
        context = made[:, :, -overlap:] if made.shape[2] else None
        # The last one may be shorter than the clip that its frames are timed for.
        stream = nova.stream(
            model, TEXT, replace(PLAN, frames=chunk), generator=generator, context=context, fps=8.0
        )
        one = torch.stack([next(stream) for _ in range(count)], dim=2)
        made = torch.cat([made, one[:, :, overlap if made.shape[2] else 0 :]], dim=2)
    assert torch.equal(whole, made)


def test_samples_with_generators_of_their_own_do_not_depend_on_their_neighbours(model):
    plan = {"frames": 7, "chunk": 3, "overlap": 2, "context_noise": 0.3}
    draws = [[torch.Generator().manual_seed(s) for s in seeds] for seeds in ((1, 2), (3, 2))]
    one, other = (make(model, each, **plan) for each in draws)
    torch.testing.assert_close(one[1], other[1])
    assert not torch.allclose(one[0], other[0])


def test_a_given_order_and_a_window_hold_in_every_chunk(model):
    order = torch.arange(16).flip(0).expand(2, -1)
    plan = {"chunk": 3, "overlap": 1, "window": 1, "pinned": 0}
    whole = make(model, generator := seeded(), order=order, frames=5, **plan)
    first = make(model, again := seeded(), order=order, frames=3, window=1, pinned=0)
    assert torch.equal(whole[:, :, :3], first)
    second = make(model, again, first[:, :, -1:], order=order, frames=3, window=1, pinned=0)
    assert torch.equal(whole[:, :, 3:], second[:, :, 1:])
    assert torch.equal(generator.get_state(), again.get_state())


@pytest.mark.parametrize("chunk", [3, 4, 9])
def test_a_video_that_fits_a_chunk_is_that_of_no_chunks(model, chunk):
    assert torch.equal(
        make(model, seeded(), frames=3, chunk=chunk), make(model, seeded(), frames=3)
    )


def test_given_frames_begin_the_first_chunk(model):
    given_frames = make(model, seeded(), frames=2)
    made = make(model, seeded(), given_frames, frames=6, chunk=3)
    assert torch.equal(made[:, :, :2], given_frames)
    assert torch.equal(made[:, :, :3], make(model, seeded(), given_frames, frames=3))


def test_frames_are_counted_through_all_chunks_and_each_is_the_callers(model):
    told = []
    plan = replace(PLAN, frames=5, chunk=3, overlap=2)
    options = {"generator": seeded(), "fps": 8.0}
    frames = []
    for frame in nova.stream(model, TEXT, plan, callback=told.append, **options):
        frames.append(frame.clone())
        frame.fill_(7)
    assert [(p.frame, p.set, p.frames) for p in told] == [
        (t, s, 5) for t in range(5) for s in (0, 1)
    ]
    whole = make(model, seeded(), frames=5, chunk=3, overlap=2)
    assert torch.equal(torch.stack(frames, dim=2), whole)


def test_the_cache_is_that_of_a_chunk_however_long_the_video(model, monkeypatch):
    sizes, allocate = [], model.temporal.allocate_cache

    def recorded(batch: int, capacity: int, **options: object) -> KVCache:
        sizes.append(capacity)
        return allocate(batch, capacity, **options)

    monkeypatch.setattr(model.temporal, "allocate_cache", recorded)
    make(model, seeded(), frames=2)
    make(model, seeded(), frames=20, chunk=2)
    assert len(sizes) == 20
    assert len(set(sizes)) == 1


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("chunk", {"chunk": 0}),
        ("chunk", {"chunk": 2, "overlap": 2}),
        ("overlap", {"chunk": 2, "overlap": 0}),
    ],
)
def test_bad_chunks_are_refused(name, plan, refuses):
    with refuses(name):
        replace(PLAN, frames=4, **plan)


def test_more_given_frames_than_a_chunk_has_are_refused(model, refuses):
    with refuses("context", "plan.chunk=2"):
        make(model, seeded(), torch.zeros(2, 2, 3, 4, 4), frames=6, chunk=2)
