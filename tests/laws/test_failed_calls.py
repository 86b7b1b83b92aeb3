"""A call that fails on its way leaves every cache and memory as it was."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from tiny_mar import TOKENS, VALUES, tiny_mar
from torch import Tensor, nn

from contar.attention import KVCache, TokenCache
from contar.backbones import SpatialTower, TemporalTower

NO_MEMORY = torch.OutOfMemoryError("out of memory")


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@contextmanager
def failing(module: nn.Module, error: BaseException = NO_MEMORY) -> Iterator[None]:
    """A module whose call fails."""
    with mock.patch.object(module, "forward", side_effect=error), pytest.raises(type(error)):
        yield


def held(cache: Any) -> Any:
    """What a cache holds, as far as anyone can read it."""
    if isinstance(cache, KVCache):
        stop = sum(cache.sizes)
        return cache.sizes, cache._used, cache._memory[..., :stop, :].clone()
    if isinstance(cache, TokenCache):
        ids = None if cache._ids is None else cache._ids.clone()
        return cache.full, ids, cache._memory.clone() if cache.full else None
    return held(cache.encoder), held(cache.decoder), cache.seen, cache.full


def assert_same(one: Any, two: Any) -> None:
    if isinstance(one, tuple):
        for a, b in zip(one, two, strict=True):
            assert_same(a, b)
    elif isinstance(one, Tensor):
        assert torch.equal(one, two)
    else:
        assert one == two


def tower() -> TemporalTower:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TemporalTower(depth=3, width=16, heads=2).eval()


@pytest.mark.parametrize("options", [{}, {"window": 2}, {"window": 2, "pinned": 1}])
@pytest.mark.parametrize("given", [0, 1, 4])
@pytest.mark.parametrize(
    ("where", "error"),
    [("first block", NO_MEMORY), ("second block", KeyboardInterrupt()), ("norm", NO_MEMORY)],
)
@torch.no_grad()
def test_a_temporal_tower_that_fails_leaves_its_cache_and_can_be_called_again(
    error: BaseException, options: dict[str, int], given: int, where: str
) -> None:
    model = tower()
    part = {"first block": model.blocks[0], "second block": model.blocks[1], "norm": model.norm}
    cache = model.allocate_cache(2, 3 * 15 if options else 3 * 6, **options)
    for frame in range(given):
        model(randn(2, 1, 3, 16, seed=frame), cache=cache)
    before, twin = held(cache), copy.deepcopy(cache)
    frames = randn(2, 2, 3, 16, seed=9)
    with failing(part[where], error):
        model(frames, cache=cache)
    assert_same(held(cache), before)
    other = randn(2, 1, 3, 16, seed=8)
    assert torch.equal(
        model(other, cache=copy.deepcopy(cache)), model(other, cache=copy.deepcopy(twin))
    )
    assert torch.equal(model(frames, cache=cache), model(frames, cache=twin))
    assert_same(held(cache), held(twin))


def spatial() -> tuple[nn.Module, list[nn.Module], Callable[..., Tensor], Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SpatialTower(4, 8, encoder=(2, 16, 2), decoder=(2, 16, 2)).eval()
    tokens, prefix = randn(2, 8, 4), randn(2, 2, 8, seed=1)

    def call(visible: int, rows: list[int], memory: Any) -> Tensor:
        ids = torch.arange(visible).expand(2, -1)
        wanted = torch.tensor(rows).expand(2, -1)
        return model(tokens, prefix, ids, query_ids=wanted, memory=memory)

    parts = [model.encoder[1], model.decoder[0], model.decoder[1], model.norm]
    return model, parts, call, lambda: model.allocate_memory(2, 8, 2)


def of_mar() -> tuple[nn.Module, list[nn.Module], Callable[..., Tensor], Any]:
    model = tiny_mar()
    tokens, labels = randn(2, TOKENS, VALUES), torch.tensor([0, 1])

    def call(visible: int, rows: list[int], memory: Any) -> Tensor:
        ids = torch.arange(visible).expand(2, -1)
        return model(tokens, labels, ids, query_ids=torch.tensor(rows).expand(2, -1), memory=memory)

    parts: list[Any] = [model.spatial.encoder[0], model.spatial.decoder[1], model.spatial.norm]
    return model, parts, call, lambda: model.allocate_memory(2)


@pytest.mark.parametrize("make", [spatial, of_mar])
@torch.no_grad()
def test_a_spatial_tower_that_fails_leaves_its_memory_and_can_be_called_again(make: Any) -> None:
    _, parts, call, allocate = make()
    for part in parts:
        memory = allocate()
        for visible, rows in ((2, [2, 3]), (4, [4]), (4, [6, 5]), (5, [5, 6])):
            before, twin = held(memory), copy.deepcopy(memory)
            if visible != 4 or rows == [4] or part is not parts[0]:  # else its block has no tokens
                with failing(part):
                    call(visible, rows, memory)
            assert_same(held(memory), before)
            again = call(visible, [7], copy.deepcopy(memory))
            assert torch.equal(again, call(visible, [7], copy.deepcopy(twin)))
            assert torch.equal(call(visible, rows, memory), call(visible, rows, twin))
            assert_same(held(memory), held(twin))


def test_caches_of_one_s_own_are_undone_by_hand(refuses: Any) -> None:
    cache = KVCache(layers=2, batch=1, heads=1, width=2, capacity=4, window=2)
    cache.undo()
    assert cache.sizes == ()
    for size in (2, 1):
        cache.reserve(size)
        for layer in range(2):
            cache.write(layer, randn(1, 1, size, 2, seed=size), randn(1, 1, size, 2, seed=9))
    before = held(cache)
    cache.reserve(3)
    assert cache.sizes == (1, 3)
    cache.write(0, randn(1, 1, 3, 2, seed=5), randn(1, 1, 3, 2, seed=6))
    cache.undo()
    assert_same(held(cache), before)
    cache.undo()  # nothing is left to take back
    assert_same(held(cache), before)

    tokens = TokenCache(layers=2, batch=1, heads=1, width=2, tokens=4)
    for ids in (None, torch.tensor([[3, 1]]), None):
        held_before, count = held(tokens), 4 if ids is None else 2
        for _ in range(2):
            tokens.place(ids)
            tokens.write(1, randn(1, 1, count, 2), randn(1, 1, count, 2, seed=1))
            tokens.undo()
            assert_same(held(tokens), held_before)
        tokens.place(ids)
        for layer in range(2):
            tokens.write(layer, randn(1, 1, count, 2), randn(1, 1, count, 2, seed=1))
    with refuses("ids", "integers from 0 to 3"):
        tokens.place(torch.tensor([[4]]))
