"""What a NOVA is made of and what memory it needs, without its weights."""

from pathlib import Path

import torch

from contar._errors import bad
from contar._files import read_weights
from contar.conditioning import text_package
from contar.tokenizers import VAETokenizer, vae_memory
from recipes._nova.config import PRESETS
from recipes._nova.files import carried_folder, open_network, open_vae, read_index
from recipes._nova.network import Nova
from recipes._nova.request import default_values


def describe(
    model: str | Path, *, frames: int | None = None, num_heads: tuple[int, int] | None = None
) -> str:
    """Return a page on a pipeline, by its folder or name, or on the network of a preset.

    Memory is stated for so many frames, or for the model's default.

    Raises:
        ValueError, FileNotFoundError: no such preset or folder, or as `nova.from_pretrained`.
    """
    folder = carried_folder(model) or Path(model)
    if not folder.is_dir():
        if model not in PRESETS:
            allowed = "moving-digits, a folder, or one of " + ", ".join(PRESETS)
            raise bad("model", str(model), allowed)
        with torch.device("meta"):
            network = Nova(PRESETS[str(model)])
        return "\n".join([f"{model}: a preset", *_network_lines(network)])
    index = read_index(folder, "model", model)
    place = folder / "transformer"
    network, _ = open_network(place, _weights(place), num_heads)
    lines = [f"{model}: a pipeline", *_network_lines(network)]
    packaged = index.get("text_package")
    text = text_package(packaged) if packaged else folder / "text_encoder"
    if text.is_dir():
        held = read_weights(text, "model.safetensors")  # mapped, not read
        lines.append(_weights_line("text encoder", sum(x.numel() for x in held.values())))
    vae = open_vae(folder / "vae", _weights(folder / "vae"))
    tokenizer = VAETokenizer(vae)
    lines.append(_weights_line(type(vae).__name__, sum(p.numel() for p in vae.parameters())))
    defaults = default_values(network, tokenizer, index.get("defaults") or {})
    frames = int(defaults["num_frames"]) if frames is None else frames
    size = tuple(side * tokenizer.space_stride for side in network.sizes.latent)
    count = tokenizer.latent_frames(frames, "frames")
    shape = (tokenizer.channels, count, *network.sizes.latent)
    lines += [
        "",
        f"{frames} frames of {size[1]} x {size[0]}: latents {' x '.join(map(str, shape))} "
        f"(time {tokenizer.time_stride}, space {tokenizer.space_stride})",
        "memory beside the weights, one sample:",
    ]
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        needs = vae_memory(tokenizer, frames, size, dtype)
        needs["cached keys and values"] = _cache_bytes(network, count, dtype)
        words = ", ".join(f"{what} {_bytes(need)}" for what, need in needs.items())
        lines.append(f"  {name:9} {words}")
    heat = defaults.pop("temperature")
    both = heat if isinstance(heat, tuple) else (heat,)
    told = [f"{name} {value:g}" for name, value in defaults.items()]
    told.append("temperature " + " to ".join(f"{value:g}" for value in both))
    lines.append("defaults: " + ", ".join(told))
    return "\n".join(lines)


def _weights(folder: Path) -> dict[str, torch.Tensor] | None:
    """Return a part's weights, which are mapped, not read; None where there are only configs."""
    try:
        return read_weights(folder)
    except FileNotFoundError:
        return None


def _network_lines(network: Nova) -> list[str]:
    sizes = network.sizes
    height, width = sizes.latent
    lines = [f"latent {sizes.channels} x {height} x {width}, patch {sizes.patch}"]
    for name in ("temporal", "encoder", "decoder"):
        depth, width, heads = getattr(sizes, name)
        lines.append(f"{name} tower: {depth} blocks, width {width}, {heads} heads")
    told = ", ".join(f"{k} {v}" for k, v in sizes.head.items() if isinstance(v, int | float))
    lines.append(f"head: {sizes.head['name']}, {told}")
    lines.append(f"{'part':16} {'parameters':>13} {'float32':>10} {'bfloat16':>10}")
    for name, part in network.named_children():
        lines.append(_weights_line(f"  {name}", sum(p.numel() for p in part.parameters())))
    lines.append(_weights_line("network", sum(p.numel() for p in network.parameters())))
    return lines


def _weights_line(name: str, count: int) -> str:
    return f"{name:16} {count:>13,} {_bytes(4 * count):>10} {_bytes(2 * count):>10}"


def _bytes(size: float) -> str:
    for unit in ("KiB", "MiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.2f} {unit}"
    return f"{size / 1024:.2f} GiB"


def _cache_bytes(network: Nova, frames: int, dtype: torch.dtype) -> int:
    """Return the bytes of the keys and values that a guided sample's temporal tower keeps."""
    sizes = network.sizes
    tokens = sizes.latent[0] * sizes.latent[1] // sizes.patch**2
    length = sizes.text_length + 2 + frames * (tokens // 4)
    cache = 2 * 2 * sizes.temporal.depth * length * sizes.temporal.width
    return cache * dtype.itemsize
