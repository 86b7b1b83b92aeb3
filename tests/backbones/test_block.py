"""A block does what its formula says, with its norms on either side of a branch."""

import pytest
import torch

from contar.backbones import Block


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
