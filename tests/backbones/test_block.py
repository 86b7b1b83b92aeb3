"""A block does what its formula says, with its norms on either side of a branch."""

import pytest
import torch

from contar.attention import Positions, rotary_table
from contar.backbones import Block, SpatialTower, take


@pytest.mark.parametrize("prenorm", [False, True])
def test_norms_stand_before_or_behind_the_branches(prenorm):
    torch.manual_seed(0)
    block = Block(8, 2, prenorm=prenorm, eps=1e-3)
    for norm in (block.norm1, block.norm2):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
        assert norm.eps == 1e-3
    x = expected = torch.randn(2, 5, 8)
    for branch, norm in ((block.attn, block.norm1), (block.mlp, block.norm2)):
        added = branch(norm(expected)) if prenorm else norm(branch(expected))
        expected = expected + added
    assert torch.equal(block(x), expected)


@pytest.mark.parametrize("prenorm", [False, True])
@pytest.mark.parametrize("rotary", [None, "shared", "each"])
def test_rows_alone_are_what_they_are_among_all(prenorm, rotary):
    torch.manual_seed(0)
    block, x = Block(32, 2, prenorm=prenorm), torch.randn(3, 7, 32)
    ids = torch.stack([torch.randperm(7)[:4] for _ in range(3)])
    rope = None
    if rotary:
        shape = (7, 3) if rotary == "shared" else (3, 7, 3)
        rope = rotary_table(torch.rand(shape) * 9, 16, sections=(4, 6, 6))
    some = block(x, query_ids=ids, rope=rope)
    torch.testing.assert_close(some, take(block(x, rope=rope), ids), rtol=1e-5, atol=1e-6)


def test_a_spatial_tower_gives_the_conditions_of_rows_alone():
    torch.manual_seed(0)
    tower = SpatialTower(4, 12, encoder=(2, 16, 2), decoder=(2, 8, 2)).eval()
    tokens, prefix = torch.randn(3, 9, 4), torch.randn(3, 5, 12)
    order = torch.stack([torch.randperm(9) for _ in range(3)])
    visible, rows = order[:, :4], order[:, 4:7]
    every = tower(tokens, prefix, visible)
    computed = []
    for block in tower.decoder:
        mlp = block.get_submodule("mlp")
        mlp.register_forward_pre_hook(lambda _, x: computed.append(x[0].shape[1]))
    some = tower(tokens, prefix, visible, query_ids=rows)
    assert computed == [5 + 9, 3]
    torch.testing.assert_close(some, take(every, rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("of", ["hidden", "all"])
def test_the_decoder_half_adds_its_positions_to_hidden_tokens_or_to_all(of, padded):
    torch.manual_seed(0)
    tower = SpatialTower(4, 12, encoder=(1, 8, 2), decoder=(1, 8, 2), decoder_positions=of).eval()
    tokens, prefix = torch.randn(2, 6, 4), torch.randn(2, 3, 12)
    visible = torch.tensor([[4, 1, 0], [2, 5, 3]])
    filling = torch.tensor([[False, False, True]] * 2) if padded else None
    entered = []
    tower.decoder[0].register_forward_pre_hook(lambda _, x: entered.append(x[0]))
    add = torch.randn(6 + 3 * (of == "all"), 8)
    for positions in (Positions(), Positions(add=add)):
        tower(tokens, prefix, visible, positions=(Positions(), positions), padding_mask=filling)
    hidden = torch.ones(2, 6, dtype=torch.bool).scatter(1, visible[:, : 2 if padded else 3], False)
    wanted = torch.zeros(2, 9, 8) + (add if of == "all" else 0)
    if of == "hidden":
        wanted[:, 3:] = add * hidden[..., None]
    torch.testing.assert_close(entered[1] - entered[0], wanted)
    unseen = entered[0][:, 3:][hidden]
    torch.testing.assert_close(unseen, tower.mask_token.expand_as(unseen))


@pytest.mark.parametrize(
    "rows", [torch.tensor([[0, 9]]), torch.tensor([[-1]]), torch.tensor([0]), torch.zeros(1, 2)]
)
def test_query_ids_that_a_tower_does_not_have_are_refused(rows, refuses):
    tower = SpatialTower(4, 12, encoder=(1, 8, 2), decoder=(1, 8, 2))
    visible = torch.zeros(1, 0, dtype=torch.int64)
    with refuses("query_ids"):
        tower(torch.randn(1, 9, 4), torch.randn(1, 5, 12), visible, query_ids=rows)
