"""MAR's goldens: what is compared, and how.

Generation runs through `mar.generate` with the recorded order and noise; each set's tokens are
replaced by the recorded ones after they have been compared, so that every step starts from recorded
inputs.
"""

import itertools
import math
from typing import Any
from unittest import mock

import numpy as np
import torch
from nova_case import GRADIENT, STEP, ZERO_GRADIENT, Errors, relative_error, weights_by_rule

from contar.heads import Noise
from contar.ordering import TrainingMask
from recipes import mar
from recipes._mar.keys import official_name

SCALE = 1e-6  # of a guidance scale, which is recorded in float32


def load_model(description: dict[str, Any], device: str = "cpu") -> mar.Mar:
    """Build the model of a golden with the weights of the rule."""
    model = mar.build(mar.MarConfig.from_official(description["config"]), device=device)
    model.load_official_state_dict(weights_by_rule(description["parameters"]))
    return model


def check_mar(
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
        steps = int(description["config"]["num_sampling_steps"])
        return _check_generation(model, case, steps, tensors)
    raise ValueError(f"task {case['task']!r} is not known here")


def _check_generation(
    model: mar.Mar, case: dict[str, Any], steps: int, z: dict[str, torch.Tensor]
) -> Errors:
    batch, sets = len(z["labels"]), case["num_iter"]
    start = {"linear": 1.0, "constant": None}[case["cfg_schedule"]]
    plan = mar.GenerationPlan(
        sets=sets,
        diffusion_steps=steps,
        guidance=mar.Guidance(case["cfg"], start=start),
        temperature=case["temperature"],
        rounding="floor",
    )
    guided = plan.guidance.active
    sizes = tuple(len(z[f"noise.{i}"]) // batch for i in range(sets))
    errors: dict[str, float] = dict.fromkeys(("cond", "sample", "guidance"), 0.0)
    errors["sizes"] = float(plan.sizes(z["order"].shape[1]) != sizes)
    turns = iter(range(sets))
    sample = model.head.sample

    def note(name: str, error: float) -> None:
        errors[name] = max(errors[name], error) if error == error else math.nan

    def watched_sample(cond: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        i = next(turns)
        both = [cond, kwargs["uncond"]] if guided else [cond]
        note("cond", relative_error(torch.cat(both).flatten(0, 1), z[f"token_cond.{i}"]))
        scale = float(z["cfg_per_step"][i])
        note("guidance", abs(kwargs["guidance"].scale - scale) / scale)
        shape = (batch, sizes[i], -1)
        fresh = iter(z[f"step_noise.{i}"][:, : batch * sizes[i]])
        drawn = itertools.chain([z[f"noise.{i}"]], fresh)
        noise = mock.Mock(Noise, normal=lambda *_: next(drawn).view(shape))
        tokens = sample(cond, **{**kwargs, "noise": noise})
        recorded = z[f"sample.{i}"][: batch * sizes[i]].view(shape)
        note("sample", relative_error(tokens, recorded))
        return recorded

    with mock.patch.object(model.head, "sample", watched_sample):
        # Official orders are read from their end: what comes first stays hidden longest.
        latents = mar.generate(model, z["labels"], plan, order=z["order"].flip(1))
    return {
        "sizes": (errors["sizes"] + len(list(turns)), 0.0),
        "guidance": (errors["guidance"], SCALE),
        "cond": (errors["cond"], STEP),
        "sample": (errors["sample"], STEP),
        "latents, forced": (relative_error(latents, z["latents"]), STEP),
    }


def _check_training(model: mar.Mar, case: dict[str, Any], z: dict[str, torch.Tensor]) -> Errors:
    hidden, repeats = z["mask"].bool(), case["diffusion_batch_mul"]
    batch, tokens = hidden.shape
    visible_ids = (
        torch.arange(tokens, device=hidden.device).expand(batch, -1)[~hidden].view(batch, -1)
    )
    shape = (repeats, batch, tokens)
    conditions: list[torch.Tensor] = []

    def watch(module: Any, given: Any, options: dict[str, Any], _: Any) -> None:
        with torch.no_grad():  # training asks for those of hidden tokens only
            conditions.append(module.forward(*given, **{**options, "query_ids": None}))

    hook = model.register_forward_hook(watch, with_kwargs=True)
    losses = mar.training_losses(
        model,
        z["latents"],
        z["labels"],
        repeats=repeats,
        label_drop=0.0,
        mask=TrainingMask(hidden, visible_ids),
        noise=z["noise"].unflatten(0, shape)[:, hidden],
        index=z["timesteps"].unflatten(0, shape)[:, hidden],
    )
    hook.remove()
    losses.total.backward()
    cond = conditions[0].flatten(0, 1).repeat(repeats, 1)
    recorded = dict(case["grad_norms"])
    worst, zero = 0.0, 0.0
    for name, parameter in model.named_parameters():
        theirs = recorded.pop(official_name(name))
        ours = 0.0 if parameter.grad is None else parameter.grad.norm().item()
        if theirs == 0:
            zero = max(zero, ours)
        else:
            worst = max(worst, abs(ours - theirs) / theirs)
    return {
        "token_cond": (relative_error(cond, z["token_cond"]), STEP),
        "out.loss": (relative_error(losses.total.detach(), z["out.loss"]), STEP),
        "gradients": (worst if not recorded else math.inf, GRADIENT),
        "zero gradients": (zero, ZERO_GRADIENT),
    }
