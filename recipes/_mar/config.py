"""MAR's sizes as one immutable value, the released presets, the reading of official configs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contar._errors import bad, check_choice, check_count, check_grid, check_number
from recipes._shared.sizes import Tower, read_saved, settle_parts

IDDPM = {
    "_class_name": "DDPMScheduler",
    "beta_schedule": "squaredcos_cap_v2",
    "variance_type": "learned_range",
    "timestep_spacing": "linspace",
    "clip_sample": False,
}
"""IDDPM's noise, in training and, by `iddpm_table`, in sampling."""


def official_head(width: int, depth: int) -> dict[str, Any]:
    """Return the head of the official code: a diffusion with a learned variance, in 100 steps."""
    return {
        "name": "diffusion", "width": width, "depth": depth, "scheduler": dict(IDDPM),
        "solver": "iddpm", "steps": 100, "prenorm": True, "projection": "linear",
    }  # fmt: skip


def _official(depth: int, width: int, heads: int, head: tuple[int, int]) -> dict[str, Any]:
    halves = [(f"{half}_depth", f"{half}_embed_dim", f"{half}_num_heads")
              for half in ("encoder", "decoder")]  # fmt: skip
    sizes = {key: n for keys in halves for key, n in zip(keys, (depth, width, heads), strict=True)}
    return {**sizes, "diffloss_d": head[0], "diffloss_w": head[1]}


# What the official class takes where it is told nothing, and the sizes of the released models.
_DEFAULTS: dict[str, Any] = {
    **_official(16, 1024, 16, (3, 1024)),
    "img_size": 256, "vae_stride": 16, "patch_size": 1, "vae_embed_dim": 16,
    "class_num": 1000, "buffer_size": 64, "mlp_ratio": 4.0,
}  # fmt: skip
_RELEASED = {
    "mar_base": _official(12, 768, 12, (6, 1024)),
    "mar_large": _official(16, 1024, 16, (8, 1280)),
    "mar_huge": _official(20, 1280, 16, (12, 1536)),
}


@dataclass(frozen=True)
class MarConfig:
    """The sizes of a MAR.

    Args:
        encoder: the half that sees the visible tokens.
        decoder: the half that sees all of them.
        head: of the tokens, by name with its sizes, as `contar.heads.make_head` takes it; the
            official one is `official_head(width, depth)`.
        latent: (height, width) of the latent.
        channels: of a latent.
        patch: side of a token.
        classes: how many there are.
        buffer: class tokens before the others.
        mlp_ratio: hidden width of the MLPs over a half's width.

    Raises:
        ValueError: a number outside its range, or a latent that the patch does not divide.
    """

    encoder: Tower
    decoder: Tower
    head: Mapping[str, Any]
    latent: tuple[int, int] = (16, 16)
    channels: int = 16
    patch: int = 1
    classes: int = 1000
    buffer: int = 64
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        settle_parts(self)
        for name in ("channels", "patch", "classes", "buffer"):
            check_count(name, getattr(self, name))
        least = 1 / min(self.encoder.width, self.decoder.width)
        check_number("mlp_ratio", self.mlp_ratio, least)
        latent = check_grid("latent", self.latent)
        object.__setattr__(self, "latent", latent)
        if any(size % self.patch for size in latent):
            raise bad("latent", latent, f"multiples of the patch {self.patch}")

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens, (rows, columns)."""
        return self.latent[0] // self.patch, self.latent[1] // self.patch

    @property
    def tokens(self) -> int:
        """How many tokens a latent has."""
        return self.grid[0] * self.grid[1]

    @property
    def token_dim(self) -> int:
        """How many values a token has."""
        return self.patch**2 * self.channels

    @classmethod
    def from_dict(cls, sizes: Mapping[str, Any]) -> "MarConfig":
        """Return the config of a saved model.

        Raises:
            ValueError: no mapping, or a field that is unknown, missing or out of its range.
        """
        return cls(**read_saved(cls, sizes, official_head))

    @classmethod
    def from_official(cls, config: Mapping[str, Any]) -> "MarConfig":
        """Read the arguments of the official class `MAR`, or those stored in a released checkpoint.

        Keys that are no sizes are passed over. A key `model` (`mar_base`, `mar_large`, `mar_huge`)
        stands for its sizes; what is missing is as the official class has it.

        Raises:
            ValueError: a value that is none, named by its key.
        """
        if not isinstance(config, Mapping):
            raise bad("config", type(config).__name__, "a mapping of the official arguments")
        model = config.get("model")
        if model is not None:
            check_choice("config['model']", model, tuple(_RELEASED))
        c = {**_DEFAULTS, **({} if model is None else _RELEASED[model])}
        c |= {key: config[key] for key in c if key in config}
        for key, value in c.items():
            if key != "mlp_ratio":
                check_count(f"config[{key!r}]", value)
        towers = (
            Tower(c[f"{part}_depth"], c[f"{part}_embed_dim"], c[f"{part}_num_heads"])
            for part in ("encoder", "decoder")
        )
        side = c["img_size"] // c["vae_stride"]
        return cls(
            *towers,
            head=official_head(c["diffloss_w"], c["diffloss_d"]),
            latent=(side, side),
            channels=c["vae_embed_dim"],
            patch=c["patch_size"],
            classes=c["class_num"],
            buffer=c["buffer_size"],
            mlp_ratio=c["mlp_ratio"],
        )


PRESETS: dict[str, MarConfig] = {
    name.replace("_", "-"): MarConfig.from_official({"model": name}) for name in _RELEASED
}
"""The models released with the paper, by name: github.com/LTH14/mar."""
