"""Heads of other libraries' models, made anew with their weights."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from contar._errors import bad, check_instance
from contar._typing import Tensor
from contar.heads.protocol import TokenHead
from contar.heads.registry import make_head


@dataclass(frozen=True)
class _Form:
    """How a model's head is called there: beginnings of names, (theirs, ours); `{i}` is a block."""

    within: str  # beginning of all of the head's names
    names: Sequence[tuple[str, str]]
    sizes: Mapping[str, Any]  # what the weights do not tell
    learning: Sequence[tuple[str, str]] = ()  # names outside, of use in training alone
    unread: tuple[str, ...] = ()  # ends of names of constants

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Beginnings of names within the model, (ours, theirs)."""
        head = [(ours, self.within + theirs) for theirs, ours in self.names]
        return head + [(ours, theirs) for theirs, ours in self.learning]


_SUNDIAL = _Form(
    "flow_loss.net.",
    [
        ("input_proj.", "network.token."),
        ("time_embed.mlp.0.", "network.time.fc1."),
        ("time_embed.mlp.2.", "network.time.fc2."),
        ("cond_embed.", "network.condition."),
        ("res_blocks.{i}.adaLN_modulation.1.", "network.blocks.{i}.norm1.proj."),
        ("res_blocks.{i}.in_ln.", "network.blocks.{i}.norm1."),
        ("res_blocks.{i}.mlp.0.", "network.blocks.{i}.mlp.fc1."),
        ("res_blocks.{i}.mlp.2.", "network.blocks.{i}.mlp.fc2."),
        ("final_layer.adaLN_modulation.1.", "network.norm.proj."),
        ("final_layer.linear.", "network.out."),
    ],
    {
        "name": "flow", "prenorm": True, "projection": "linear", "prediction": "sample",
        "timesteps": "signal", "draws": "uniform", "solver": "straight", "steps": 50,
    },
)  # fmt: skip
_POCKET = _Form(
    "flow_head.",
    [
        ("input_proj.", "network.token."),
        ("cond_proj.", "network.condition."),
        ("timestep_embeddings.0.norm.weight", "network.time.weight"),
        ("timestep_embeddings.0.", "network.time."),
        ("timestep_embeddings.1.norm.weight", "end.weight"),
        ("timestep_embeddings.1.", "end."),
        ("layers.{i}.adaln_proj.", "network.blocks.{i}.norm1.proj."),
        ("layers.{i}.norm.", "network.blocks.{i}.norm1."),
        ("layers.{i}.fc", "network.blocks.{i}.mlp.fc"),
        ("final_layer.adaln_proj.", "network.norm.proj."),
        ("final_layer.proj.", "network.out."),
    ],
    {"name": "flow_map", "prenorm": True, "projection": "linear", "time_norm": "deviation"},
    [
        ("loss_weighting.layers.0.", "weighting.0."),
        ("loss_weighting.layers.1.", "weighting.2."),
        ("loss_weighting.layers.2.", "weighting.4."),
        ("loss_weighting.proj.", "weighting.6."),
    ],
    unread=(".freqs",),
)
_PHONON = replace(_POCKET, sizes={**_POCKET.sizes, "time_norm": "rms"})
_VIBEVOICE = _Form(
    "diffusion_head.",
    [
        ("noisy_images_proj.", "network.token."),
        ("cond_proj.", "network.condition."),
        ("timestep_proj.", "network.time."),
        ("layers.{i}.linear.", "network.blocks.{i}.norm1.proj."),
        ("layers.{i}.norm.", "network.blocks.{i}.norm1."),
        ("layers.{i}.ffn.gate_proj.", "network.blocks.{i}.mlp.gate."),  # joined with the next
        ("layers.{i}.ffn.up_proj.", "network.blocks.{i}.mlp.value."),
        ("layers.{i}.ffn.down_proj.", "network.blocks.{i}.mlp.fc2."),
        ("final_layer.linear_1.", "network.norm.proj."),
        ("final_layer.linear_2.", "network.out."),
    ],
    {
        "name": "diffusion", "prenorm": True, "projection": "linear", "norm": "rms", "eps": 1e-5,
        "gated": True, "bias": False, "steps": 10,
        "scheduler": {
            "_class_name": "DPMSolverMultistepScheduler", "beta_schedule": "squaredcos_cap_v2",
            "prediction_type": "v_prediction",
        },
    },
)  # fmt: skip
_FORMS = {"pocket_tts": _POCKET, "phonon": _PHONON, "sundial": _SUNDIAL, "vibevoice": _VIBEVOICE}


def released_head(name: str, state: Mapping[str, Tensor], **options: Any) -> TokenHead:
    """Return the head of another library's model, with its weights.

    It predicts, learns and draws as there, but for these:

    - "sundial" (sktime; arXiv 2502.00816): the loss there is the sum over a token's values, that of
      value i divided by i; here it is the mean, weighted the same. Timesteps are a thousandth
      apart here, and any number there.
    - "pocket_tts" and "phonon" (transformers): the temperature there is the variance of the noise.
      A training step there learns jumps from all of its draws or from none.
    - "vibevoice" (transformers; arXiv 2508.19205): training there draws the first
      `num_diffusion_steps` timesteps alone, 10 of 1,000 unless told otherwise; here, all. Its own
      scheduler, set to no timesteps, adds the noise of timestep 999 - t at t (diffusers 0.42);
      set to all 1,000, as here.

    Args:
        name: "pocket_tts", "phonon", "sundial" or "vibevoice".
        state: the model's `state_dict`, or what its file holds; what belongs to no head is not
            looked at.
        options: of the head, as `make_head` takes them, in place of the model's own.

    Raises:
        ValueError: an unknown name, no weights of such a head, weights that are missing, unknown
            or of other shapes.
    """
    form = _form(name)
    check_instance("state", state, Mapping)
    weights = _renamed(name, form, state)
    token, cond = (weights[f"network.{part}.weight"] for part in ("token", "condition"))
    blocks = {key.split(".")[2] for key in weights if key.startswith("network.blocks.")}
    sizes: dict[str, Any] = {**form.sizes, "width": len(token), "depth": len(blocks)}
    if sizes.get("gated"):
        sizes["hidden"] = weights["network.blocks.0.mlp.fc2.weight"].shape[1]
    if name == "sundial":
        sizes["weights"] = [1 / (i + 1) for i in range(token.shape[1])]
    head: Any = make_head({**sizes, **options}, token.shape[1], cond.shape[1])
    _load(head, weights, form)
    return head


def released_names(name: str) -> list[tuple[str, str]]:
    """Return beginnings of a released head's names, (ours, those in its model); `{i}` is a block.

    Raises:
        ValueError: an unknown name.
    """
    return _form(name).pairs


def _form(name: str) -> _Form:
    if name not in _FORMS:
        raise bad("name", name, f"one of {', '.join(_FORMS)}")
    return _FORMS[name]


def _renamed(name: str, form: _Form, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the head's weights by our names, scale before shift, gates before values."""
    weights = {}
    parts = {form.within, *(theirs.partition(".")[0] + "." for theirs, _ in form.learning)}
    within = re.compile(rf"(?:^|\.)((?:{'|'.join(map(re.escape, parts))}).+)$")
    for key, value in state.items():
        found = within.search(key)
        if found and not key.endswith(form.unread or ("\0",)):
            ours = _ours(found[1], form)
            if ours is None:
                raise bad("state", key, f"weights of a head of {name}")
            weights[ours] = value
    for key in list(weights):
        if ".norm1.proj." in key or ".norm.proj." in key:
            shift, scale, *gate = weights[key].chunk(3 if ".norm1." in key else 2)
            weights[key] = torch.cat([scale, shift, *gate])
        elif ".mlp.gate." in key:
            both = (weights.pop(key), weights.pop(key.replace(".gate.", ".value."), None))
            joined = torch.cat([weight for weight in both if weight is not None])
            weights[key.replace(".gate.", ".fc1.")] = joined
    first = ("token", "condition", "blocks.0.mlp.fc2")
    wanted = [f"network.{part}.weight" for part in first]
    if missing := [key for key in wanted if key not in weights or weights[key].ndim != 2]:
        raise bad("state", f"no {missing[0]}", f"weights of a head of {name}, {form.within}…")
    return weights


def _ours(theirs: str, form: _Form) -> str | None:
    for ours, part in form.pairs:
        if match := re.match(re.escape(part).replace(r"\{i\}", r"(\d+)"), theirs):
            return ours.replace("{i}", match[1] if match.groups() else "") + theirs[match.end() :]
    return None


def _load(head: nn.Module, weights: Mapping[str, Tensor], form: _Form) -> None:
    own, learning = head.state_dict(), tuple(ours for _, ours in form.learning)
    absent = [key for key in own if key not in weights and not key.startswith(learning)]
    extra = [key for key in weights if key not in own]
    for names, allowed in ((absent, "all of the head's"), (extra, "only the head's")):
        if names:
            raise bad("state", f"{'no ' * (names is absent)}{names[0]}", allowed)
    for key, value in weights.items():
        if value.shape != own[key].shape:
            raise bad(f"state[{key!r}]", tuple(value.shape), f"shape {tuple(own[key].shape)}")
    head.load_state_dict(dict(weights), strict=False)
