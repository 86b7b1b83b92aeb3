"""What commands with a pipeline share."""

from typing import Any

from contar._errors import bad, check_count, check_device


def load_pipeline(
    model: str, device: str | None, dtype: str | None, heads: tuple[int, int] | None, tiling: bool
) -> Any:
    """Return the pipeline of a command's options, on its device."""
    import torch

    from recipes import nova

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device("device", device)
    kind = dtype or ("bfloat16" if device.startswith("cuda") else "float32")
    pipe = nova.from_pretrained(model, dtype=getattr(torch, kind), num_heads=heads)
    pipe.to(device)
    if tiling:
        if not hasattr(pipe.vae, "use_tiling"):
            raise bad("tiling", True, f"False: {type(pipe.vae).__name__} knows no tiles")
        pipe.vae.enable_tiling()
    return pipe


def seeded(seed: int) -> Any:
    """Return the generator of a command's seed."""
    import torch

    if check_count("seed", seed, 0) >= 2**63:
        raise bad("seed", seed, "below 2**63")
    return torch.Generator().manual_seed(seed)
