"""MAR's training with dropout: official in what it drops, drawn from the generator alone."""

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import Block as TimmBlock
from tiny_mar import tiny_mar
from torch import Tensor

from contar.attention import Dropout, attend
from contar.backbones import Block
from recipes import mar


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


def loss(model: mar.Mar, seed: int = 0, **options: Any) -> Tensor:
    latents, labels = randn(2, 2, 4, 8, seed=7), torch.tensor([0, 2])
    return mar.training_losses(model, latents, labels, generator=seeded(seed), **options).total


def test_training_drops_by_its_own_generator_and_none_by_default() -> None:
    model = tiny_mar()
    state = torch.get_rng_state()
    plain = loss(model)
    assert torch.equal(loss(model, dropout=0.0), plain)
    dropped = loss(model, dropout=0.1)
    assert torch.equal(loss(model, dropout=0.1), dropped)
    assert not torch.equal(dropped, plain)
    assert torch.equal(loss(model.train(), dropout=0.1), dropped)  # the argument alone decides
    assert torch.equal(loss(model.train()), plain)
    assert torch.equal(torch.get_rng_state(), state)
    gradients = torch.autograd.grad(loss(model, dropout=0.5), list(model.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_dropout_changes_neither_the_mask_nor_the_dropped_labels() -> None:
    seen: list[Any] = []
    model = tiny_mar()
    forward = model.forward

    def spy(tokens: Tensor, labels: Tensor, ids: Tensor, **options: Any) -> Tensor:
        seen.append((labels, ids))
        return forward(tokens, labels, ids, **options)

    model.forward = spy  # type: ignore[method-assign]
    for dropout in (0.0, 0.3):
        loss(model, dropout=dropout, label_drop=0.5)
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


class Recorded:
    """What is dropped, in order: the shapes; nothing is."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        return x


def test_a_block_drops_where_the_official_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    official: Any = TimmBlock(16, 2, qkv_bias=True, proj_drop=0.1, attn_drop=0.1)
    official.attn.fused_attn = False
    theirs, ours = Recorded(), Recorded()
    for module in official.modules():
        if isinstance(module, torch.nn.Dropout) and module.p:
            module.forward = theirs  # type: ignore[method-assign]
    block = Block(16, 2, prenorm=True)
    block.load_state_dict(official.state_dict())
    monkeypatch.setattr(Dropout, "__call__", lambda _, x: ours(x))
    x = randn(3, 5, 16)
    out = block(x, dropout=Dropout(0.1, seeded()))
    torch.testing.assert_close(out, official.train()(x))
    assert ours.shapes == theirs.shapes
    assert len(ours.shapes) == 4


@pytest.mark.parametrize("prenorm", [False, True])
def test_dropout_of_0_changes_nothing(prenorm: bool) -> None:
    block, x = Block(16, 2, prenorm=prenorm), randn(3, 5, 16)
    for rows in (None, torch.tensor([[0, 3]] * 3)):
        plain = block(x, query_ids=rows, backend="plain")
        torch.testing.assert_close(block(x, query_ids=rows, dropout=Dropout(0.0, seeded())), plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_share_is_dropped_and_the_mean_stays(dtype: torch.dtype) -> None:
    ones = torch.ones(200, 500, dtype=dtype)
    dropped = Dropout(0.25, seeded())(ones)
    assert dropped.dtype == dtype
    assert abs(float((dropped == 0).float().mean()) - 0.25) < 0.01
    assert abs(float(dropped.float().mean()) - 1) < 0.01
    assert set(dropped.unique().tolist()) == {0.0, float(torch.tensor(4 / 3, dtype=dtype))}


def test_each_sample_may_have_a_generator_of_its_own() -> None:
    x = randn(2, 3, 4, 8)
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    one, two = (
        attend(x, x, x, mask=mask, dropout=Dropout(0.5, [seeded(1), seeded(other)]))
        for other in (2, 3)
    )
    assert torch.equal(one[0], two[0])
    assert not torch.equal(one[1], two[1])


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, float("nan"), "0.1", True, None])
def test_a_dropout_that_is_none_is_refused(value: Any, refuses: Any) -> None:
    with refuses("dropout", repr(value)):
        loss(tiny_mar(), dropout=value)
    with refuses("share", repr(value)):
        Dropout(value, seeded())


def test_dropout_without_a_generator_a_formula_or_a_whole_pass_is_refused(refuses: Any) -> None:
    for generator in (None, 3, [seeded(), None], []):
        with refuses("generator"):
            Dropout(0.1, generator)  # type: ignore[arg-type]
    q, model = randn(1, 1, 2, 4), tiny_mar()
    for backend in ("sdpa", "flex"):
        with refuses("backend", repr(backend), "plain"):
            attend(q, q, q, backend=backend, dropout=Dropout(0.1, seeded()))  # type: ignore[arg-type]
        with refuses("backend", repr(backend), "plain"):
            loss(model, dropout=0.1, backend=backend)
    with refuses("dropout", "float"):
        attend(q, q, q, dropout=0.1)  # type: ignore[arg-type]
    with refuses("memory"), torch.no_grad():
        tokens = torch.zeros(1, 8, 8)
        ids, memory = torch.zeros(1, 0, dtype=torch.int64), model.allocate_memory(1)
        given: Any = {"memory": memory, "dropout": Dropout(0.1, seeded())}
        model(tokens, torch.tensor([0]), ids, **given)
