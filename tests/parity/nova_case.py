"""NOVA's goldens: what is compared, and how.

Generation runs twice through `nova.generate`: once with each set's tokens replaced by the recorded
ones after they have been compared, so that every step starts from recorded inputs; and once freely
from the seed.
"""

import math
import zlib
from typing import Any
from unittest import mock

import numpy as np
import torch

from contar.backbones import take
from contar.generation import plan as plan_module
from contar.heads import DiffusionHead, Noise
from contar.ordering import TrainingMask
from contar.tokenizers import patchify
from recipes import nova
from recipes._nova.keys import official_name

SCHEDULERS = {
    "flow": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0},
    "flow_shift": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
    "ddpm_linear": {
        "_class_name": "DDPMScheduler",
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "variance_type": "fixed_small",
        "timestep_spacing": "leading",
    },
    "ddpm": {
        "_class_name": "DDPMScheduler",
        "beta_schedule": "squaredcos_cap_v2",
        "clip_sample": False,
        "variance_type": "fixed_small",
        "timestep_spacing": "trailing",
    },
}
STEP = 1e-4  # of an array's largest value; the official code's own rounding is of the order 1e-6
GRADIENT = 1e-3  # of a norm
ZERO_GRADIENT = 1e-6

Errors = dict[str, tuple[float, float]]


def weights_by_rule(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Make the goldens' weights from names and shapes."""
    weights = {}
    for key, shape in shapes.items():
        w = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
        if len(shape) == 1:
            w = 1 + 0.1 * w if key.endswith("weight") else 0.1 * w
        else:
            w = w / np.sqrt(np.prod(shape[1:]))
        weights[key] = torch.from_numpy(np.asarray(w, dtype=np.float32))
    return weights


def load_model(description: dict[str, Any], device: str = "cpu") -> nova.Nova:
    """Build the model of a golden with the weights of the rule."""
    model = nova.build(nova.NovaConfig.from_official(description["config"]), device=device)
    model.load_official_state_dict(weights_by_rule(description["parameters"]))
    return model


def check_nova(
    description: dict[str, Any],
    case: dict[str, Any],
    arrays: dict[str, np.ndarray],
    device: str = "cpu",
) -> Errors:
    model = load_model(description, device)
    tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    if case["task"] == "train":
        return _check_training(model, case, tensors)
    if case["task"] == "generate":
        return _check_generation(model, case, tensors)
    raise ValueError(f"task {case['task']!r} is not known here")


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    if ours.shape != theirs.shape:
        return math.inf
    return ((ours - theirs).detach().abs().max() / theirs.abs().max()).item()


def _check_generation(model: nova.Nova, case: dict[str, Any], z: dict[str, torch.Tensor]) -> Errors:
    sizes = tuple(int(n) for n in z["num_preds"] if n > 0)
    patch, steps = model.sizes.patch, case["diffusion_steps"]
    guidance = nova.Guidance(
        case.get("guidance_scale", 1.0),
        start=case.get("min_guidance_scale"),
        truncation=case.get("guidance_trunc", 0.0),
        renorm=case.get("guidance_renorm", 1.0),
        renorm_over="frame",
    )
    plan = nova.GenerationPlan(
        frames=case["frames"],
        sets=case["ar_steps"],
        diffusion_steps=steps,
        guidance=guidance,
        scheduler=SCHEDULERS[case["scheduler"]],
        grid=(int(z["latents"].shape[3]), int(z["latents"].shape[4])),
    )
    errors: dict[str, float] = dict.fromkeys(("order", "noise", "cond", "sample"), 0.0)
    errors["sizes"] = float(plan.sizes(z["order"].shape[1]) != sizes)

    def note(name: str, error: float) -> None:
        errors[name] = max(errors[name], error) if error == error else math.nan

    def run() -> torch.Tensor:
        context = None
        if case["image_to_video"]:
            context = z["first_frame_latents"][:, :, None]
        return nova.generate(
            model,
            z["prompt_embeds"],
            plan,
            negative_prompt_embeds=z.get("negative_prompt_embeds"),
            motion_flow=case.get("motion_flow") if model.motion else None,
            context=context,
            generator=torch.Generator().manual_seed(case["seed"]),
        )

    # Every step from recorded inputs.
    first = 1 if case["image_to_video"] else 0
    turns = iter([(t, k) for t in range(first, case["frames"]) for k in range(len(sizes))])
    step_noise = iter(z.get("step_noise", ()))
    starts = np.cumsum((0, *sizes))
    sample, spatial = DiffusionHead.sample, model.spatial.forward
    random_order = plan_module.random_order
    seen: set[int] = set()
    now = [first, 0]

    def watched_order(*args: Any, **kwargs: Any) -> torch.Tensor:
        order = random_order(*args, **kwargs)
        note("order", float(not torch.equal(order, z["order"])))
        return order

    def watched_spatial(
        tokens: torch.Tensor, prefix: torch.Tensor, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        now[:] = next(turns)
        if now[0] not in seen:
            seen.add(now[0])
            note("cond", relative_error(prefix, z[f"cond.{now[0]}"][: len(prefix)]))
        return spatial(tokens, prefix, *args, **kwargs)

    class Watched(Noise):
        """Hold what a head is given against what was recorded: its start, then its steps'."""

        def __init__(self, source: Noise, ids: torch.Tensor, recorded: torch.Tensor) -> None:
            self.source, self.ids, self.recorded = source, ids, iter([recorded])

        def normal(self, *shape: int) -> torch.Tensor:
            drawn = self.source.normal(*shape)
            recorded = next(self.recorded, None)
            recorded = next(step_noise) if recorded is None else recorded
            wanted = take(patchify(recorded, patch), self.ids)
            note("noise", float(not torch.equal(drawn, wanted)))
            return drawn

    def watched_sample(head: Any, cond: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        t, k = now
        current = z["order"][:, starts[k] : starts[k + 1]]
        others = torch.cat([z["order"][:, : starts[k]], z["order"][:, starts[k + 1] :]], dim=1)
        ids = torch.cat([current, others], dim=1)
        noise = Watched(kwargs["noise"], ids, z[f"noise.{t}.{k}"])
        tokens = sample(head, cond, **{**kwargs, "noise": noise})
        recorded = take(z[f"sample.{t}.{k}"], current)
        note("sample", relative_error(tokens, recorded))
        return recorded

    with (
        mock.patch.object(plan_module, "random_order", watched_order),
        mock.patch.object(model.spatial, "forward", watched_spatial),
        mock.patch.object(DiffusionHead, "sample", watched_sample),
    ):
        forced = run()
    unused = len(list(turns)) + len(list(step_noise))
    note("noise", float(unused > 0))
    sensitivity = case["sensitivity"]
    result = {
        **{name: (errors[name], 0.0) for name in ("order", "sizes", "noise")},
        **{name: (errors[name], STEP) for name in ("cond", "sample")},
        "latents, forced": (relative_error(forced, z["latents"]), STEP),
    }
    bound = latents_bound(sensitivity)
    if bound is not None:
        result["latents"] = (relative_error(run(), z["latents"]), bound)
    return result


def latents_bound(sensitivity: float) -> float | None:
    """What final latents of a free run may be off; None where official rounding says nothing."""
    if sensitivity > 1e-3:
        return None
    return 1e-4 if sensitivity <= 1e-5 else 10 * sensitivity


def _check_training(model: nova.Nova, case: dict[str, Any], z: dict[str, torch.Tensor]) -> Errors:
    latents = z["latents"] if z["latents"].ndim == 5 else z["latents"][:, :, None]
    hidden = z["mask"].bool()
    repeats = case["loss_repeat"]
    noise = z["noise"].unflatten(0, (repeats, -1))[:, hidden]
    index = z["timesteps"].unflatten(0, (repeats, -1))[:, hidden]
    conditions: list[torch.Tensor] = []

    def watch(module: Any, given: Any, options: dict[str, Any], _: Any) -> None:
        with torch.no_grad():  # training asks for those of hidden tokens only
            conditions.append(module.forward(*given, **{**options, "query_ids": None}))

    hook = model.spatial.register_forward_hook(watch, with_kwargs=True)
    losses = nova.training_losses(
        model,
        latents,
        z["prompt_embeds"],
        motion_flow=z["motion_flow"].tolist() if "motion_flow" in z else None,
        fps=z["fps"].tolist() if "fps" in z else None,
        repeats=repeats,
        scheduler=SCHEDULERS[case["scheduler"]],
        mask=TrainingMask(hidden, z["visible_ids"]),
        noise=noise,
        index=index,
    )
    hook.remove()
    losses.total.backward()
    pairs = {"out.loss": losses.total, "out.loss_t2i": losses.first, "out.loss_i2i": losses.later}
    errors = {"token_cond": (relative_error(conditions[0], z["token_cond"]), STEP)}
    for name, value in pairs.items():
        if name in z:
            assert value is not None
            errors[name] = (relative_error(value.detach(), z[name]), STEP)
    recorded = dict(case["grad_norms"])
    worst, zero = 0.0, 0.0
    for name, parameter in model.named_parameters():
        theirs = recorded.pop(official_name(name, model.sizes.encoder.depth))
        ours = 0.0 if parameter.grad is None else parameter.grad.norm().item()
        if theirs == 0:
            zero = max(zero, ours)
        else:
            worst = max(worst, abs(ours - theirs) / theirs)
    errors["gradients"] = (worst if not recorded else math.inf, GRADIENT)
    errors["zero gradients"] = (zero, ZERO_GRADIENT)
    return errors
