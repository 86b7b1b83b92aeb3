"""Heads by name: a model's config says which one it has, and of which sizes."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Unpack, get_args, get_origin

from contar._errors import bad, check_callable, check_instance
from contar.diffusion import TimeLaw, check_law
from contar.heads._learned import law_of_indices
from contar.heads.diffusion import DiffusionHead, DiffusionOptions
from contar.heads.diffusion_mlp import DiffusionMLP, NetworkOptions
from contar.heads.energy import EnergyHead
from contar.heads.flow_map import FlowMapHead
from contar.heads.mean_flow import MeanFlowHead
from contar.heads.mixture import MixtureHead
from contar.heads.protocol import TokenHead

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}
DDPM = {
    "_class_name": "DDPMScheduler",
    "beta_schedule": "linear",
    "timestep_spacing": "leading",
    "clip_sample": False,
}
Make = Callable[..., TokenHead]  # from (token_dim, cond_dim, **sizes)


class _Options(NetworkOptions, DiffusionOptions):
    """What a diffusion takes by name, beside its sizes."""


def _by(default: Mapping[str, Any], default_steps: int) -> Make:
    """Return what makes a diffusion that learns by a scheduler, where no other one is given."""

    def make(
        token_dim: int,
        cond_dim: int,
        *,
        width: int,
        depth: int,
        scheduler: Any = None,
        steps: int = default_steps,
        **options: Unpack[_Options],
    ) -> DiffusionHead:
        scheduler = default if scheduler is None else scheduler
        check_instance("scheduler", scheduler, Mapping)
        learned = "learned" in str(scheduler.get("variance_type"))
        own: Any = {key: options[key] for key in DiffusionOptions.__annotations__ if key in options}
        network: Any = {key: value for key, value in options.items() if key not in own}
        network |= {"width": width, "depth": depth, "learned_variance": learned}
        network = DiffusionMLP(token_dim, cond_dim, **network)
        return DiffusionHead(network, scheduler, steps=steps, **own)

    return make


_HEADS: dict[str, Make] = {
    "diffusion": _by(DDPM, 50),
    "flow": _by(FLOW, 25),
    "mixture": MixtureHead,
    "energy": EnergyHead,
    "mean_flow": MeanFlowHead,
    "flow_map": FlowMapHead,
}


def head_names() -> tuple[str, ...]:
    """Return the names that `make_head` knows."""
    return tuple(_HEADS)


def register_head(name: str, make: Make) -> None:
    """Let configs name a head of one's own.

    Args:
        make: from (token_dim, cond_dim, **sizes) to the head.

    Raises:
        ValueError: a name that is taken, or something that cannot be called.
    """
    check_instance("name", name, str)
    if name in _HEADS and _HEADS[name] is not make:
        raise bad("name", name, f"one that is not taken: {', '.join(_HEADS)}")
    check_callable("make", make)
    _HEADS[name] = make


def make_head(head: Mapping[str, Any], token_dim: int, cond_dim: int) -> TokenHead:
    """Return the head that a config names, with random weights.

    Args:
        head: {"name": one of `head_names()`, and its sizes}, as
            {"name": "flow", "width": 1280, "depth": 3}.

    Raises:
        ValueError: an unknown name, or sizes that are missing, unknown or refused by the head.
    """
    check_head(head)
    sizes = {key: value for key, value in head.items() if key != "name"}
    return _HEADS[head["name"]](token_dim, cond_dim, **sizes)


def check_head(head: object) -> None:
    """Raise a ValueError unless a config names a known head and exactly its sizes."""
    if not isinstance(head, Mapping):
        named = isinstance(head, str)
        example = head if named and head in _HEADS else "flow"
        allowed = f'a mapping, as {{"name": "{example}", ...}} with its sizes'
        raise bad("head", head if named else type(head).__name__, allowed)
    name = head.get("name")
    if not isinstance(name, str) or name not in _HEADS:
        raise bad("head['name']", name, f"one of {', '.join(_HEADS)}")
    known, missing, free = [], [], False
    for parameter in list(inspect.signature(_HEADS[name]).parameters.values())[2:]:
        if parameter.kind is not parameter.VAR_KEYWORD:
            known.append(parameter.name)
            if parameter.default is parameter.empty and parameter.name not in head:
                missing.append(parameter.name)
        elif get_origin(parameter.annotation) is Unpack:
            known += get_args(parameter.annotation)[0].__annotations__
        else:  # any will do
            free = True
    for key in head:
        if key not in ("name", *known) and not free:
            raise bad(f"head[{key!r}]", head[key], f"of {name}: {', '.join(known)}")
    if missing:
        raise bad(f"head[{missing[0]!r}]", None, f"a value, as {name} has no default for it")


def head_law(head: Mapping[str, Any]) -> tuple[TimeLaw, tuple[float, float]]:
    """Return the law of indices by which a named diffusion or flow learns, and its `logit`.

    Both are as `NoiseProcess.draw_indices` takes them.

    Raises:
        ValueError: another head, or a law that it does not take.
    """
    flows = "FlowMatch" in str(head_scheduler(head).get("_class_name"))
    draws, logit = head.get("draws"), head.get("logit", (0.0, 1.0))
    check_law("uniform" if draws is None else draws, logit, "draws")
    return law_of_indices(flows, draws, logit)


def head_scheduler(head: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config of the scheduler by which a named diffusion or flow learns.

    Raises:
        ValueError: another head, which learns by none.
    """
    check_head(head)
    if head["name"] not in ("diffusion", "flow"):
        raise bad("head", head["name"], "a diffusion or a flow, which learn by a scheduler")
    given = head.get("scheduler")
    return {"diffusion": DDPM, "flow": FLOW}[head["name"]] if given is None else given
