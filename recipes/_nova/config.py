"""NOVA's sizes as one immutable value, the released presets, the reading of official configs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from contar._errors import bad, check_choice, check_count, check_grid, check_number, plain
from contar.attention import rotary_sections
from recipes._shared.sizes import Tower, read_saved, settle_parts

# Attention heads of the released towers by width; their configs do not say (vit_d16w768: 12).
RELEASED_HEADS = {768: 12, 1024: 16, 1536: 16}
# What a config's own `heads` has to say of each part.
_OFFICIAL_SIZES = {
    "video_encoder": ("depth", "dim", "heads"),
    "image_encoder": ("depth", "dim", "heads"),
    "image_decoder": ("depth", "dim"),
}


def _flow(width: int, depth: int) -> dict[str, Any]:
    """Return the head of the official code."""
    return {"name": "flow", "width": width, "depth": depth}


@dataclass(frozen=True)
class NovaConfig:
    """The sizes of a NOVA.

    Args:
        temporal: the temporal tower.
        encoder: the encoder half of the spatial tower.
        decoder: the decoder half of the spatial tower.
        head: of the tokens, by name with its sizes, as `contar.heads.make_head` takes it.
        text_width: of the text encoder's states.
        text_length: tokens to which a text is padded.
        channels: of a latent.
        patch: side of a spatial token; a temporal token's is twice that.
        latent: (height, width) of the latent frames that it is made for.
        frames: latent frames that it is made for; more than 1 adds motion tokens.
        grid: spatial tokens (rows, columns) that positions are stretched to.
        frame_grid: temporal tokens (rows, columns) that positions are stretched to.
        positions: "absolute" (sine-cosine, learned times) or "rotary".
        adapter: rank of the scale-and-shift adapter, "full", or None for no adapter.
        text_rows: stored padding rows of the text.
        motion_scale: factor of motion scores before they are embedded by sines and cosines, the
            fastest of which takes a turn in 2 pi: scores far below 1 are all alike to them.

    Raises:
        ValueError: a size below 1, a scale of 0 or less, an unknown kind of positions, a latent
            that the patches do not divide, widths that the heads or the positions do not split.
    """

    temporal: Tower
    encoder: Tower
    decoder: Tower
    head: Mapping[str, Any]
    text_width: int
    text_length: int
    latent: tuple[int, int]
    channels: int = 4
    patch: int = 2
    frames: int = 1
    grid: tuple[int, int] | None = None
    frame_grid: tuple[int, int] | None = None
    positions: Literal["absolute", "rotary"] = "absolute"
    adapter: int | Literal["full"] | None = None
    text_rows: int = 512
    motion_scale: float = 1.0

    def __post_init__(self) -> None:
        settle_parts(self)
        for name in ("text_width", "text_length", "channels", "patch", "frames"):
            check_count(name, getattr(self, name))
        if check_count("text_rows", self.text_rows) < self.text_length:
            raise bad("text_rows", self.text_rows, f"at least text_length={self.text_length}")
        if check_number("motion_scale", self.motion_scale, 0) == 0:
            raise bad("motion_scale", self.motion_scale, "above 0")
        check_choice("positions", self.positions, ("absolute", "rotary"))
        if self.adapter is not None and self.adapter != "full":
            check_count("adapter", self.adapter)
        self.check_latent("latent", self.latent)
        for name, side in (("latent", 1), ("grid", self.patch), ("frame_grid", 2 * self.patch)):
            size = getattr(self, name)
            size = [pixels // side for pixels in self.latent] if size is None else size
            object.__setattr__(self, name, check_grid(name, size))
        _check_positions(self)

    @property
    def token_dim(self) -> int:
        """How many values a token has."""
        return self.patch**2 * self.channels

    def check_latent(self, name: str, latent: tuple[int, int]) -> None:
        """Raise a ValueError unless both kinds of patches divide a latent grid."""
        if any(size % (2 * self.patch) for size in check_grid(name, latent)):
            raise bad(name, tuple(latent), f"multiples of {2 * self.patch}, the coarse patch")

    @classmethod
    def from_dict(cls, sizes: Mapping[str, Any]) -> "NovaConfig":
        """Return the config of a saved model.

        Raises:
            ValueError: no mapping, or a field that is unknown, missing or out of its range.
        """
        return cls(**read_saved(cls, sizes, _flow))

    @classmethod
    def from_official(
        cls, config: Mapping[str, Any], *, num_heads: tuple[int, int] | None = None
    ) -> "NovaConfig":
        """Read the config of a released `transformer/config.json`.

        A key `heads` may say depth, width and attention heads of each tower (`video_encoder`,
        `image_encoder`, `image_decoder`); without it they are read from the architecture's names
        (`vit_d16w1024`: 16 attention heads, as released).

        Args:
            config: the mapping.
            num_heads: attention heads (temporal, spatial) for names outside the released ones.

        Raises:
            ValueError: a key that is missing or has a value that this reader does not know.
        """
        if not isinstance(config, Mapping):
            got = type(config).__name__
            raise bad("config", got, "a mapping, as transformer/config.json holds")
        counts = ("image_dim", "image_stride", "text_token_dim", "text_token_len")
        for key in (*counts, "image_size", "image_base_size", "video_base_size", "arch"):
            if config.get(key) is None:
                raise bad(f"config[{key!r}]", config.get(key), "a value, as in released configs")
        channels, stride, text_width, text_length = (
            check_count(f"config[{key!r}]", config[key]) for key in counts
        )
        grid = check_grid("config['image_base_size']", config["image_base_size"], "(rows, columns)")
        axes = "(frames, rows, columns)"
        video = check_grid("config['video_base_size']", config["video_base_size"], axes)
        temporal, spatial, head = _official_towers(config, num_heads)
        size = config["image_size"]
        size = (size, size) if isinstance(plain(size), int) else size
        height, width = check_grid("config['image_size']", size)
        if height % stride or width % stride:
            raise bad("config['image_size']", size, f"multiples of image_stride={stride}")
        rank = config.get("video_mixer_rank")
        if rank is not None and type(plain(rank)) is not int:
            raise bad("config['video_mixer_rank']", rank, "an integer or None")
        return cls(
            temporal=temporal,
            encoder=spatial._replace(depth=spatial.depth // 2),
            decoder=spatial._replace(depth=spatial.depth - spatial.depth // 2),
            head=_flow(head[1], head[0]),
            text_width=text_width,
            text_length=text_length,
            latent=(height // stride, width // stride),
            channels=channels,
            patch=15 // stride + 1,
            frames=video[0],
            grid=grid,  # type: ignore[arg-type]
            frame_grid=video[1:],  # type: ignore[arg-type]
            positions="rotary" if config.get("rotary_pos_embed") else "absolute",
            adapter="full" if (rank or 0) < 0 else rank or None,
        )

    def to_official(self) -> dict[str, Any]:
        """Return the config as a released `transformer/config.json` has it.

        Raises:
            ValueError: sizes that the official code cannot build: towers of different widths,
                halves of the spatial tower of other heads or depths, other heads than its own for
                a width, other padding rows than 512, or patches of another size than 1 and 2.
        """
        temporal, first, last = self.temporal, self.encoder, self.decoder
        depth = first.depth + last.depth
        if temporal.width != first.width:
            raise bad("temporal.width", temporal.width, f"the encoder's {first.width}")
        for name, tower in (("temporal", temporal), ("encoder", first)):
            heads = RELEASED_HEADS.get(tower.width, tower.heads)  # which the config does not say
            if tower.heads != heads:
                raise bad(f"{name}.heads", tower.heads, f"{heads}, of the width {tower.width}")
        if self.text_rows != 512:
            raise bad("text_rows", self.text_rows, "512")
        if first[1:] != last[1:] or first.depth != depth // 2:
            allowed = f"width and heads of the encoder {first}, half of all blocks"
            raise bad("decoder", last, allowed)
        if self.patch > 2:
            raise bad("patch", self.patch, "1 or 2")
        own = set(self.head) - {"name", "depth", "width", "scheduler", "steps"}
        if self.head["name"] not in ("flow", "diffusion") or own:
            raise bad("head", self.head, "a flow or a diffusion, as the official code has them")
        stride = {1: 16, 2: 8}[self.patch]
        assert self.grid is not None and self.frame_grid is not None  # noqa: PT018 - for the reader of types
        return {
            "arch": [
                f"vit_d{temporal.depth}w{temporal.width}",
                f"vit_d{depth}w{first.width}",
                f"mlp_d{self.head['depth']}w{self.head['width']}",
            ],
            "image_base_size": list(self.grid),
            "image_dim": self.channels,
            "image_size": [stride * side for side in self.latent],
            "image_stride": stride,
            "rotary_pos_embed": self.positions == "rotary",
            "text_token_dim": self.text_width,
            "text_token_len": self.text_length,
            "video_base_size": [self.frames, *self.frame_grid],
            "video_mixer_rank": -1 if self.adapter == "full" else self.adapter,
        }


def _check_positions(config: NovaConfig) -> None:
    for name in ("temporal", "encoder", "decoder"):
        _, width, heads = getattr(config, name)
        if config.positions == "absolute" and width % 4:
            raise bad(f"{name}.width", width, "a multiple of 4, for absolute positions")
        if config.positions == "rotary":
            try:
                rotary_sections(width // heads)
            except ValueError as error:
                got = f"{width} in {heads} heads"
                raise bad(f"{name}.width", got, f"for rotary positions: {error}") from None


def _official_towers(
    config: Mapping[str, Any], num_heads: tuple[int, int] | None
) -> tuple[Tower, Tower, tuple[int, int]]:
    """Return the temporal and the spatial tower, and depth and width of the token head."""
    if (heads := config.get("heads")) is not None:
        read = {}
        for name, parts in _OFFICIAL_SIZES.items():
            sizes = heads.get(name) if isinstance(heads, Mapping) else None
            sizes = sizes if isinstance(sizes, Mapping) else {}
            key = f"config['heads'][{name!r}]"
            read[name] = [check_count(f"{key}[{part!r}]", sizes.get(part)) for part in parts]
        depth, width = read["image_decoder"]
        return Tower(*read["video_encoder"]), Tower(*read["image_encoder"]), (depth, width)
    sizes, arch = [], config["arch"]
    if not isinstance(arch, Sequence) or isinstance(arch, str) or len(arch) != 3:
        raise bad("config['arch']", arch, "three names, as ['vit_d16w1024', 'vit_d32w1024', ...]")
    for name, kind in zip(arch, ("vit", "vit", "mlp"), strict=True):
        match = re.fullmatch(rf"{kind}_d([0-9]{{1,18}})w([0-9]{{1,18}})", str(name))
        if match is None:
            raise bad("config['arch']", name, f"a name such as {kind}_d16w1024")
        depth, width = int(match[1]), int(match[2])
        if kind == "vit" and num_heads is None and width not in RELEASED_HEADS:
            allowed = "two numbers, temporal and spatial, as 16 16"
            allowed = f"{allowed}: {name} is not a released architecture"
            raise bad("num_heads", None, allowed)
        sizes.append((depth, width))
    (dt, wt), (ds, ws), head = sizes
    if num_heads is None:
        num_heads = RELEASED_HEADS[wt], RELEASED_HEADS[ws]
    ht, hs = check_grid("num_heads", num_heads, "(temporal, spatial)")
    return Tower(dt, wt, ht), Tower(ds, ws, hs), head


def _released(
    width: int, head: Mapping[str, Any], latent: tuple[int, int], **other: Any
) -> NovaConfig:
    """Return the sizes of a released model, whose three towers are alike."""
    half = Tower(16, width, RELEASED_HEADS[width])
    return NovaConfig(
        temporal=half,
        encoder=half,
        decoder=half,
        head=head,
        text_width=2560,
        text_length=256,
        latent=latent,
        **other,
    )


PRESETS: dict[str, NovaConfig] = {
    "nova-d48w768-sdxl1024": _released(768, _flow(768, 6), (128, 128)),
    "nova-d48w1024-sdxl1024": _released(1024, _flow(1024, 6), (128, 128)),
    "nova-d48w1536-sdxl1024": _released(1536, _flow(1536, 6), (128, 128)),
    "nova-d48w1024-osp480": _released(1024, _flow(1280, 3), (60, 96), frames=16, adapter=24),
}
"""The models released with the paper, by name: github.com/baaivision/NOVA, docs/model_zoo.md."""
