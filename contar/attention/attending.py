"""`attend`: one function for attention, its backends and masks checked at this door."""

import importlib.util
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask

from contar._errors import bad, check_choice, check_device, check_instance, check_tensor
from contar._random import Dropout
from contar._typing import Float, Tensor
from contar.attention._kernels import BACKENDS, Backend, Mask, attention, prepared
from contar.attention.layout import BlockLayout


def why_unavailable(backend: Backend, device: torch.device | str) -> str | None:
    """Return why `backend` cannot run on `device` here, or None if it can."""
    check_choice("backend", backend, BACKENDS)
    check_device("device", device)
    return _reason(backend, torch.device(device))


def check_backend(backend: Backend | None, device: torch.device) -> None:
    """Raise a ValueError unless `backend` is None or can run on `device`, which a tensor has.

    So there is such a device: to count them is nothing that a compiled graph can do.
    """
    if backend is not None:
        check_choice("backend", backend, BACKENDS)
        if (reason := _reason(backend, device)) is not None:
            raise bad("backend", backend, f"another one: {reason}")


def _reason(backend: Backend, device: torch.device) -> str | None:
    if backend != "xformers":
        return None
    if importlib.util.find_spec("xformers") is None:
        return 'xformers is not installed (pip install "contar[xformers]")'
    if device.type != "cuda":
        return f"xformers has no attention for {device.type}, only for cuda"
    return None


def prepare_mask(
    layout: BlockLayout | None, backend: Backend | None, device: torch.device | str
) -> Mask:
    """Turn a layout into the form that `backend` reads, once for all layers.

    A layout under which every query sees every key becomes None.

    Raises:
        ValueError: no layout, or an unknown backend or device.
    """
    if layout is not None:
        check_instance("layout", layout, BlockLayout)
    if backend is not None:
        check_choice("backend", backend, BACKENDS)
    check_device("device", device)
    return prepared(layout, backend, device)


def attend(
    q: Float[Tensor, "b s q k"],
    k: Float[Tensor, "b s kv k"],
    v: Float[Tensor, "b s kv k"],
    *,
    mask: Mask = None,
    backend: Backend | None = None,
    dropout: Dropout | None = None,
) -> Float[Tensor, "b s q k"]:
    """Softmax attention of queries over keys, scaled by 1/sqrt(k).

    Args:
        q: [b, s, q, k] queries; s is the heads, k the values per head.
        k: [b, s, kv, k] keys.
        v: [b, s, kv, k] values.
        mask: who sees whom: None (all), a boolean tensor that broadcasts to [b, s, q, kv] (True is
            seen), a `BlockLayout`, or a FlexAttention `BlockMask`. A query that sees no key gets 0,
            and gives no gradient.
        backend: "plain" (a softmax written out: the oracle), "sdpa", "flex" or "xformers".
            None takes flex for a `BlockMask` and sdpa otherwise, or for bfloat16 on a CPU, without
            mask and gradients, the formula where that is faster.
        dropout: of the weights, in training. Kernels would draw it from torch's global generator,
            so that the formula is taken, "plain" or None as its backend.

    Raises:
        ValueError: shapes that do not fit, a mask that the backend cannot honour, or a backend
            that cannot run here (the message says why). An explicit choice never falls back.

    Example:
        >>> q = k = v = torch.randn(1, 2, 3, 4)
        >>> attend(q, k, v, mask=BlockLayout((1, 2))).shape
        torch.Size([1, 2, 3, 4])
    """
    _check(q, k, v, mask)
    if dropout is not None:
        check_instance("dropout", dropout, Dropout)
        if backend not in (None, "plain"):
            raise bad("backend", backend, "None or 'plain' with dropout")
    check_backend(backend, q.device)
    return attention(q, k, v, mask=mask, backend=backend, dropout=dropout)


def _check(q: Tensor, k: Tensor, v: Tensor, mask: Any) -> None:
    for name, x in (("q", q), ("k", k), ("v", v)):
        check_tensor(name, x, [None] * 4, "[b, s, n, k]", like=None if x is q else q)
    if k.shape != v.shape:
        raise bad("v", tuple(v.shape), f"the shape of k, {tuple(k.shape)}")
    if q.shape[1] != k.shape[1]:
        allowed = f"as many heads as k, {k.shape[1]}: grouped heads are not taken"
        raise bad("q", tuple(q.shape), allowed)
    if (*q.shape[:2], q.shape[3]) != (*k.shape[:2], k.shape[3]):
        raise bad("q", tuple(q.shape), f"[b, s, any, k] as in k {tuple(k.shape)}")
    lengths = (q.shape[2], k.shape[2])
    if isinstance(mask, Tensor):
        fits = mask.ndim <= 4 and all(
            m in (1, full)
            for m, full in zip(mask.shape[::-1], (*q.shape[:3], lengths[1])[::-1], strict=False)
        )
        if mask.dtype != torch.bool or not fits:
            got = f"{mask.dtype} {tuple(mask.shape)}"
            raise bad("mask", got, f"torch.bool that broadcasts to {(*q.shape[:3], lengths[1])}")
        if mask.device != q.device:
            raise bad("mask", f"a tensor on {mask.device}", f"one on {q.device}")
    elif isinstance(mask, BlockLayout):
        if (mask.queries, mask.keys) != lengths:
            raise bad("mask", f"a layout of {(mask.queries, mask.keys)}", f"(q, kv) = {lengths}")
    elif isinstance(mask, BlockMask):
        if tuple(mask.seq_lengths) != lengths:
            raise bad("mask", f"a BlockMask of {mask.seq_lengths}", f"(q, kv) = {lengths}")
    elif mask is not None:
        raise bad("mask", type(mask).__name__, "None, a tensor, a BlockLayout or a BlockMask")
