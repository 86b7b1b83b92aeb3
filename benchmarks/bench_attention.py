"""Block-causal attention: frames x tokens x prefix x backend, forward."""

import pytest
import torch

from contar.attention import BlockLayout, attend, prepare_mask, why_unavailable

LAYOUTS = {
    "3 frames of 64, prefix 16": (3, 64, 16),
    "9 frames of 64, prefix 64": (9, 64, 64),
    "9 frames of 360, prefix 258": (9, 360, 258),
}
HEADS, WIDTH = 8, 64


@pytest.mark.parametrize("backend", ["plain", "sdpa", "xformers"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_block_causal_attention(benchmark, layout, backend):
    if (reason := why_unavailable(backend, "cpu")) is not None:
        pytest.skip(reason)
    frames, tokens, prefix = LAYOUTS[layout]
    blocks = BlockLayout((prefix + tokens, *[tokens] * (frames - 1)))
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, HEADS, blocks.keys, WIDTH, generator=generator)
    mask = prepare_mask(blocks, backend, "cpu")
    result = benchmark(lambda: attend(q, k, v, mask=mask, backend=backend))
    oracle = attend(q, k, v, mask=blocks, backend="plain")
    torch.testing.assert_close(result, oracle, rtol=1e-4, atol=1e-5)
