"""A temporal tower as a causal transformer: its blocks' options, and padding before a sample."""

from typing import Any

import pytest
import torch
from torch import nn

from contar.attention import rotary_table
from contar.backbones import Block, TemporalTower

OPTIONS: Any = {"prenorm": True, "bias": False, "activation": "gelu_tanh", "eps": 1e-6}


def tower_of(depth=2):
    torch.manual_seed(0)
    return TemporalTower(depth=depth, width=16, heads=2, **OPTIONS).eval()


def rope_of(positions):
    zeros = torch.zeros_like(positions)
    return rotary_table(torch.stack([positions, zeros, zeros], dim=-1), 8, sections=(8, 0, 0))


def test_a_block_without_biases_has_none_but_those_of_its_norms():
    biases = {name for name, _ in Block(8, 2, bias=False).named_parameters() if "bias" in name}
    assert biases == {"norm1.bias", "norm2.bias"}


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_the_activation_of_a_block_is_that_of_its_mlp(activation):
    torch.manual_seed(0)
    block, x = Block(8, 2, activation=activation, bias=False), torch.randn(2, 3, 8)
    approximate = "tanh" if activation == "gelu_tanh" else "none"
    hidden = nn.functional.gelu(x @ block.mlp.fc1.weight.T, approximate=approximate)
    torch.testing.assert_close(block.mlp(x), hidden @ block.mlp.fc2.weight.T)


def test_a_tower_hands_its_options_to_its_blocks():
    tower = tower_of()
    blocks: Any = tower.blocks
    for block in blocks:
        assert block.prenorm
        assert block.attn.qkv.bias is block.mlp.fc1.bias is None
        assert block.mlp.act.approximate == "tanh"
        assert block.norm1.eps == tower.norm.eps == 1e-6


@pytest.mark.parametrize("cached", [False, True])
def test_padding_before_a_sample_changes_nothing_of_it(cached):
    tower, pads = tower_of(), [0, 3]
    x = torch.randn(2, 7, 1, 16)
    behind = torch.arange(7.0) - torch.tensor(pads)[:, None]
    padding, rope = behind < 0, rope_of(behind.clamp(min=0))
    with torch.no_grad():
        if cached:
            cache = tower.allocate_cache(2, 7)
            parts = [
                tower(x[:, a:b], rope=rope[:, :b], padding_mask=padding[:, :b], cache=cache)
                for a, b in ((0, 5), (5, 6), (6, 7))
            ]
            out = torch.cat(parts, dim=1)
        else:
            out = tower(x, rope=rope, padding_mask=padding)
        for sample, pad in enumerate(pads):
            alone = tower(x[sample : sample + 1, pad:], rope=rope_of(torch.arange(7.0 - pad)))
            torch.testing.assert_close(out[sample : sample + 1, pad:], alone, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(out[1, 3:], tower(x, rope=rope)[1, 3:], atol=1e-3)


def test_padding_that_does_not_fit_is_refused_and_the_cache_is_as_it_was(refuses):
    tower, x = tower_of(depth=1), torch.randn(2, 4, 1, 16)
    cache = tower.allocate_cache(2, 8)
    with torch.no_grad():
        tower(x, cache=cache)
        for wrong in (torch.zeros(2, 4, dtype=torch.bool), torch.zeros(2, 8)):
            with refuses("padding_mask"):
                tower(x, padding_mask=wrong, cache=cache)
        with refuses("backend"):
            tower(x, padding_mask=torch.zeros(2, 8, dtype=torch.bool), cache=cache, backend="flex")
    assert cache.sizes == (1,) * 4


def test_unknown_options_are_refused_by_name(refuses):
    wrong: Any = (("activation", "relu"), ("bias", 1), ("prenorm", None), ("eps", -1))
    for name, value in wrong:
        with refuses(name):
            TemporalTower(depth=1, width=16, heads=2, **{name: value})
