"""Several of a plan's faster options at once."""

from typing import Any

from contar._errors import bad, check_size
from contar.diffusion import load_scheduler

_NOISE = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
    "prediction_type", "rescale_betas_zero_snr", "use_flow_sigmas", "flow_shift",
)  # fmt: skip
# Of a flow's config: what a solver of higher order does not take over.
_OWN = (
    "shift_terminal", "invert_sigmas", "stochastic_sampling", "use_dynamic_shifting",
    "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas",
)  # fmt: skip


def fast_changes(scheduler: Any, sets: int, *, steps: int = 3) -> dict[str, Any]:
    """Return changes of a `GenerationPlan` that leave out most of the work, and some exactness.

    A quarter of the sets, but at least four where there are so many, each in few steps of a solver
    of higher order: what the measurements on a small model of digits support
    (docs/performance.md), where reused features cost more than they save. For a frame of 256
    tokens or more add `refresh`.

    Args:
        scheduler: what the model is sampled with otherwise, as in `load_scheduler`: the solver
            takes from it what the noise is.
        sets: that a frame is otherwise predicted in.

    Raises:
        ValueError: what `load_scheduler` refuses; a learned variance, which no such solver reads;
            a flow with timesteps of its own making; or `sets` or `steps` below 1.

    Source: UniPC (Zhao et al. 2023, arXiv 2302.04867).
    """
    own = load_scheduler(scheduler)
    config: Any = own.config
    if "learned" in str(config.get("variance_type")):
        raise bad("scheduler", config["variance_type"], "a variance that is not learned")
    solver: dict[str, Any] = {name: config[name] for name in _NOISE if name in config}
    if type(own).__name__.startswith("FlowMatch"):
        for name in _OWN:
            if config.get(name):
                raise bad("scheduler", f"{name}={config[name]!r}", "a flow without it")
        solver = {
            "use_flow_sigmas": True,
            "prediction_type": "flow_prediction",
            "flow_shift": config.get("shift", 1.0),
            "num_train_timesteps": config["num_train_timesteps"],
        }
    check_size("sets", sets)
    check_size("steps", steps)
    solver["_class_name"] = "UniPCMultistepScheduler"
    return {"scheduler": solver, "diffusion_steps": steps, "sets": max(min(sets, 4), sets // 4)}
