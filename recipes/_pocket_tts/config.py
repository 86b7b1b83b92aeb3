"""Pocket TTS's sizes as one immutable value, the preset, the reading of transformers' configs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from contar._errors import (
    bad,
    check_choice,
    check_instance,
    check_number,
    check_size,
    keep_plain,
    plain,
)
from contar.heads import check_head
from recipes._shared.sizes import Tower, check_fields, check_tower

MODEL_TYPE = "pocket_tts"  # of transformers' configs
_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}  # theirs, ours
# What transformers' classes take where a config says nothing.
_DEFAULTS: dict[str, Any] = {
    "vocab_size": 4004, "hidden_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 16,
    "num_key_value_heads": None, "head_dim": None, "intermediate_size": 4096,
    "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-5, "attention_bias": False,
    "attention_dropout": 0.0, "rope_parameters": None, "latent_dim": 32, "frame_rate": 12.5,
    "audio_prompt_bos_token_id": 4002, "lsd_distill_probability": 0.25,
    "lsd_diagonal_weight": 0.75, "lsd_time_logit_mean": 0.4, "lsd_time_logit_std": 1.0,
    "flow_head_config": None,
}  # fmt: skip
_HEAD_DEFAULTS: dict[str, Any] = {
    "hidden_size": 512, "num_hidden_layers": 6, "latent_dim": 32, "condition_dim": 1024,
    "frequency_embedding_size": 256, "hidden_act": "silu", "layer_norm_eps": 1e-6,
    "rms_norm_eps": 1e-5, "max_period": 10000.0, "flow_type": "lsd",
    "loss_weighting_hidden_size": 32, "loss_weighting_num_layers": 3,
}  # fmt: skip
_SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "latent_dim",
)  # fmt: skip
_HEAD_SIZES = ("hidden_size", "num_hidden_layers", "loss_weighting_hidden_size")


def official_head(width: int = 512, depth: int = 6) -> dict[str, Any]:
    """Return the released models' head: a flow map that draws a latent in one step."""
    return {
        "name": "flow_map", "width": width, "depth": depth, "steps": 1,
        "prenorm": True, "projection": "linear", "time_norm": "deviation",
    }  # fmt: skip


_TOWER = Tower(6, 1024, 16)  # of the released models


@dataclass(frozen=True)
class PocketTTSConfig:
    """The sizes of a Pocket TTS.

    Args:
        tower: blocks, width and attention heads.
        head: of the latents, by name with its sizes, as `contar.heads.make_head` takes it.
        hidden: width of the tower's MLPs between their layers.
        vocabulary: text tokens, marks included.
        token_dim: values of an audio latent.
        rate: audio latents a second.
        voice_mark: the text token before a voice; None has none.
        activation: of the tower's MLPs.
        eps: of the tower's norms.
        theta: base of the rotary frequencies.

    Raises:
        ValueError: a number outside its range.
    """

    tower: Tower = _TOWER
    head: Mapping[str, Any] = field(default_factory=official_head)
    hidden: int = 4096
    vocabulary: int = 4004
    token_dim: int = 32
    rate: float = 12.5
    voice_mark: int | None = 4002
    activation: Literal["gelu", "gelu_tanh"] = "gelu_tanh"
    eps: float = 1e-5
    theta: float = 10000.0

    def __post_init__(self) -> None:
        check_head(self.head)
        head = {name: plain(value) for name, value in self.head.items()}
        object.__setattr__(self, "head", head)
        keep_plain(self)
        tower = check_tower("tower", self.tower)
        object.__setattr__(self, "tower", tower)
        if tower.width // tower.heads % 2:
            raise bad("tower", tower, "heads of an even width, whose values turn in pairs")
        for name in ("hidden", "vocabulary", "token_dim"):
            check_size(name, getattr(self, name))
        if self.voice_mark is not None:
            check_size("voice_mark", self.voice_mark, 0, self.vocabulary - 1)
        check_choice("activation", self.activation, tuple(_ACTIVATIONS.values()))
        check_number("eps", self.eps, 0)
        check_number("theta", self.theta, 1)
        if not check_number("rate", self.rate, 0):
            raise bad("rate", self.rate, "latents a second, above 0")

    @classmethod
    def from_dict(cls, sizes: Mapping[str, Any]) -> "PocketTTSConfig":
        """Return the config of a saved model, whose tuples came back from JSON as lists.

        Raises:
            ValueError: no mapping, or a field that is unknown, missing or out of its range.
        """
        check_fields(cls, sizes)
        tower = check_tower("tower", sizes.get("tower", cls.tower))
        return cls(**{**sizes, "tower": tower})

    @classmethod
    def from_transformers(cls, config: Mapping[str, Any]) -> "PocketTTSConfig":
        """Read the config of transformers' `PocketTTSForConditionalGeneration`, as its JSON has it.

        Keys that are no sizes are passed over; what is missing is as transformers has it.

        Raises:
            ValueError: a config of another model, or what this model has not: grouped keys, heads
                of another width, biases, dropout, other activations or rotary laws, a head that
                is no flow map. Named by its key.
        """
        check_instance("config", config, Mapping)
        if config.get("model_type") != MODEL_TYPE:
            raise bad("config['model_type']", config.get("model_type"), repr(MODEL_TYPE))
        c = _filled("config", config, _DEFAULTS)
        where = "config['flow_head_config']"
        given = {} if c["flow_head_config"] is None else c["flow_head_config"]
        h = _filled(where, given, _HEAD_DEFAULTS)
        rope = {} if c["rope_parameters"] is None else c["rope_parameters"]
        check_instance("config['rope_parameters']", rope, Mapping)
        for name, sizes, keys in (("config", c, _SIZES), (where, h, _HEAD_SIZES)):
            for key in keys:
                check_size(f"{name}[{key!r}]", sizes[key])
        heads, width = c["num_attention_heads"], c["hidden_size"]
        only = {
            "num_key_value_heads": (None, heads), "head_dim": (None, width // heads),
            "attention_bias": (False,), "attention_dropout": (0,),
            "hidden_act": tuple(_ACTIVATIONS),
        }  # fmt: skip
        for key, allowed in only.items():
            check_choice(f"config[{key!r}]", c[key], allowed)
        check_choice("config['rope_parameters']['rope_type']", rope.get("rope_type", "default"),
                     ("default",))  # fmt: skip
        of_head = {
            "latent_dim": (c["latent_dim"],), "condition_dim": (width,), "hidden_act": ("silu",),
            "frequency_embedding_size": (256,), "max_period": (10000,), "flow_type": ("lsd",),
            "rms_norm_eps": (1e-5,), "loss_weighting_num_layers": (3,),
        }  # fmt: skip
        for key, allowed in of_head.items():
            check_choice(f"{where}[{key!r}]", h[key], allowed)
        return cls(
            tower=Tower(c["num_hidden_layers"], width, heads),
            head=_head_of(c, h),
            hidden=c["intermediate_size"],
            vocabulary=c["vocab_size"],
            token_dim=c["latent_dim"],
            rate=c["frame_rate"],
            voice_mark=c["audio_prompt_bos_token_id"],
            activation=_ACTIVATIONS[c["hidden_act"]],  # type: ignore[arg-type]
            eps=c["layer_norm_eps"],
            theta=rope.get("rope_theta", 10000.0),
        )


def _filled(name: str, given: object, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known keys of a mapping, with what is missing."""
    check_instance(name, given, Mapping)
    assert isinstance(given, Mapping)
    return {key: given.get(key, value) for key, value in defaults.items()}


def _head_of(c: Mapping[str, Any], h: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **official_head(h["hidden_size"], h["num_hidden_layers"]),
        "eps": h["layer_norm_eps"],
        "weighting": h["loss_weighting_hidden_size"],
        "share": c["lsd_distill_probability"],
        "diagonal": c["lsd_diagonal_weight"],
        "logit": (c["lsd_time_logit_mean"], c["lsd_time_logit_std"]),
    }


# github.com/kyutai-labs/pocket-tts, of 6 blocks.
PRESETS: dict[str, PocketTTSConfig] = {"pocket-tts": PocketTTSConfig()}
