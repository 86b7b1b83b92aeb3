"""From a scheduler's config to a fresh scheduler of diffusers, which holds the constants."""

import json
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from contar._defaults import fixed_defaults
from contar._errors import bad

MANY = 10**6  # timesteps, each of which some schedulers compute by itself


@runtime_checkable
class Scheduler(Protocol):
    """A scheduler of diffusers, by what is read of it."""

    @property
    def config(self) -> Any:
        """Its arguments by name."""


SchedulerConfig = Mapping[str, Any] | Scheduler
"""A diffusers scheduler, or its config as a mapping with `_class_name`."""


def load_scheduler(config: SchedulerConfig) -> Any:
    """Return a new diffusers scheduler.

    Args:
        config: a mapping with `_class_name` as in `scheduler_config.json`, or a diffusers
            scheduler, whose config is read and which itself stays untouched.

    Raises:
        ValueError: no class name, a name that diffusers does not have, an inverse scheduler or
            inverted sigmas (they go from samples to noise), or a config with clipping or
            thresholding of samples (pixel ranges, which latents do not have).
        ImportError: a scheduler of a library that is not installed.
    """
    import diffusers

    mapping = _read_config(config)
    if mapping is None:
        raise bad("scheduler", type(config).__name__, "a config mapping or a diffusers scheduler")
    name = mapping.get("_class_name")
    cls = getattr(diffusers, name, None) if isinstance(name, str) else None
    if cls is None or not hasattr(cls, "set_timesteps"):
        raise bad("scheduler", name, "a _class_name that diffusers has, as DDPMScheduler")
    if "Inverse" in str(name):
        raise bad("scheduler", name, "one from noise to samples, not from samples to noise")
    if inverted := mapping.get("invert_sigmas"):
        allowed = "False: sampling goes from noise to samples"
        raise bad("scheduler.invert_sigmas", inverted, allowed)
    trained = mapping.get("num_train_timesteps")
    if isinstance(trained, int) and trained > MANY:
        raise bad("scheduler.num_train_timesteps", trained, f"at most {MANY}")
    try:
        with fixed_defaults():
            scheduler = cls.from_config(dict(mapping))
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise bad("scheduler", dict(mapping), f"a config that {name} takes: {error}") from error
    for option in ("clip_sample", "thresholding"):
        if getattr(scheduler.config, option, False):
            raise bad(f"scheduler.{option}", True, "False: tokens of a latent have no fixed range")
    return scheduler


def _read_config(config: Any) -> Mapping[str, Any] | None:
    """Return a scheduler's arguments with its `_class_name`, or None of what is no scheduler."""
    if isinstance(config, Mapping):
        return config
    own = getattr(config, "config", None)
    return {"_class_name": type(config).__name__, **own} if isinstance(own, Mapping) else None


def config_key(config: SchedulerConfig) -> str | None:
    """Return a config as a text, None where it holds what no text does."""
    try:
        return json.dumps(dict(_read_config(config)), sort_keys=True)  # type: ignore[arg-type]
    except TypeError:
        return None
