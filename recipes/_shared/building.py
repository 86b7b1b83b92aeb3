"""Models with random weights, from a preset's name or a config."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from contar._building import build_for
from contar._defaults import fixed_defaults
from contar._errors import FLOATS, bad, check_choice, check_device, check_instance
from contar.cpu import speed_up
from contar.heads import TokenHead

Model = TypeVar("Model", bound=nn.Module)


def build_model(
    make: Callable[[Any, TokenHead | None], Model],
    preset: object,
    presets: Mapping[str, Any],
    *,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    compile: bool,
    head: TokenHead | None = None,
) -> Model:
    """Build a model: `make` takes a config and a head or None; other arguments as in `nova.build`.

    Raises:
        ValueError: an unknown preset, device or dtype, or a head that does not fit.
    """
    check_instance("compile", compile, bool)
    kind = type(next(iter(presets.values())))
    config = presets.get(preset) if isinstance(preset, str) else preset
    if not isinstance(config, kind):
        raise bad("preset", preset, f"a {kind.__name__} or one of " + ", ".join(presets))
    if device is not None:
        check_device("device", device)
    if dtype is not None:
        check_choice("dtype", dtype, FLOATS)
    with fixed_defaults("cpu" if device is None else device):
        model = make(config, head)
    if head is not None and device is not None:
        nn.Module.to(model, device)
    if dtype is not None:
        nn.Module.to(model, dtype=dtype)  # diffusers' own warns of modules that must stay float32
    speed_up(model)
    if compile:
        model.compile()
    return model


def build_empty(make: Callable[[Any], Model], sizes: Any, state: Mapping[str, Any] | None) -> Model:
    """Return a model on `meta`.

    Raises:
        ValueError: sizes of a model far larger than the weights `state`.
    """
    # Of a head, these are no sizes.
    head = {name: size for name, size in sizes.head.items() if name not in ("scheduler", "steps")}
    whole = {**vars(sizes), "head": head}
    return build_for(state, lambda: make(sizes), name="sizes", sizes=whole)
