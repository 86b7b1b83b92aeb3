"""One layout, three forms of its mask: dense, FlexAttention's, xformers'.

Source of the rule: Deng et al. 2024 (arXiv 2412.14169), section 3.2, block-wise causal masking.
"""

from typing import TYPE_CHECKING

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from contar._errors import bad, check_device, check_instance, check_size, check_total
from contar._typing import Bool, Int, Tensor
from contar.attention.layout import BlockLayout

if TYPE_CHECKING:
    from xformers.ops.fmha.attn_bias import BlockDiagonalGappyKeysMask


def _block_of_key(layout: BlockLayout, device: torch.device | str) -> Int[Tensor, " kv"]:
    check_device("device", device)
    numbers = torch.arange(len(layout.sizes), device=device)
    sizes = torch.tensor(layout.sizes, device="cpu").to(device, non_blocking=True)  # no wait
    return numbers.repeat_interleave(sizes, output_size=layout.keys)


def dense_mask(layout: BlockLayout, device: torch.device | str = "cpu") -> Bool[Tensor, "q kv"]:
    """Return the mask [queries, keys], True where a query may look.

    Example:
        >>> dense_mask(BlockLayout((2, 1, 1))).int()
        tensor([[1, 1, 0, 0],
                [1, 1, 0, 0],
                [1, 1, 1, 0],
                [1, 1, 1, 1]], dtype=torch.int32)
    """
    check_instance("layout", layout, BlockLayout)
    check_total("layout", layout.queries, layout.keys)
    key = _block_of_key(layout, device)
    query = key[layout.keys - layout.queries :, None]
    seen = key <= query
    if layout.window is not None:
        seen &= (query - key < layout.window) | (key < layout.pinned)
    return seen


def flex_mask(layout: BlockLayout, device: torch.device | str = "cpu") -> BlockMask:
    """Return the layout as a FlexAttention mask, the same for all samples and heads."""
    check_instance("layout", layout, BlockLayout)
    check_total("layout", layout.queries, layout.keys)
    block = _block_of_key(layout, device)
    query = block[layout.keys - layout.queries :]
    window, pinned = layout.window, layout.pinned
    # Rules are lambdas: FlexAttention traces them, which checks of shapes do not bear.
    rule = (
        (lambda b, h, q, kv: block[kv] <= query[q])
        if window is None
        else lambda b, h, q, kv: (
            (block[kv] <= query[q]) & ((query[q] - block[kv] < window) | (block[kv] < pinned))
        )
    )
    sizes = (layout.queries, layout.keys)
    return create_block_mask(rule, None, None, *sizes, device=str(device))


def xformers_bias(
    layout: BlockLayout, batch: int = 1, device: torch.device | str = "cpu"
) -> "BlockDiagonalGappyKeysMask":
    """Return the layout as an xformers bias over the samples laid end to end, [1, b·n, s, k].

    Each block is one query sequence; its keys are one range that starts where the sample (or the
    window) starts, so the ranges of later blocks contain those of earlier ones. xformers reads
    such keys correctly but has no backward for them.

    Raises:
        ValueError: a window with pinned blocks, whose keys are two ranges.
        ImportError: xformers is not installed.
    """
    check_instance("layout", layout, BlockLayout)
    check_size("batch", batch)
    check_device("device", device)
    check_total("batch", batch, layout.keys)
    from xformers.ops.fmha.attn_bias import BlockDiagonalGappyKeysMask

    ranges = [layout.spans(block) for block in range(layout.cached, len(layout.sizes))]
    if any(len(spans) > 1 for spans in ranges):
        raise bad("layout", layout, "for xformers: no window, or a window without pinned blocks")
    lengths = [stop - start for ((start, stop),) in ranges]
    starts = [b * layout.keys + start for b in range(batch) for ((start, _),) in ranges]
    return BlockDiagonalGappyKeysMask.from_seqlens(
        q_seqlen=list(layout.sizes[layout.cached :]) * batch,
        kv_seqstarts=[*starts, batch * layout.keys],
        kv_seqlen=lengths * batch,
        device=torch.device(device),
    )
