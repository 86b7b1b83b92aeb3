"""Latent frames to tokens and back: no parameters, only a change of shape."""

from einops import rearrange

from contar._errors import bad, check_grid, check_instance, check_size, check_tensor
from contar._typing import Float, Tensor

_VALUES = {False: "(p q c)", True: "(c p q)"}  # of a token


def patchify(
    latents: Float[Tensor, "*b c h w"], patch: int, *, channel_first: bool = False
) -> Float[Tensor, "*b n d"]:
    """Cut frames into square patches, row by row; a token holds (y, x, channel), as NOVA's do.

    Args:
        latents: [..., c, h, w].
        patch: side of a patch.
        channel_first: a token holds (channel, y, x), as MAR's do.

    Returns:
        [..., (h / patch) * (w / patch), patch * patch * c].

    Raises:
        ValueError: a grid that `patch` does not divide, or no float tensor of three axes or more.
    """
    check_size("patch", patch)
    check_instance("channel_first", channel_first, bool)
    check_tensor("latents", latents, (..., None, None, None), "[..., c, h, w]")
    height, width = latents.shape[-2:]
    if not height * width or height % patch or width % patch:
        raise bad("latents", f"a grid of {(height, width)}", f"one that the patch {patch} divides")
    return patches(latents, patch, channel_first)


def patches(latents: Tensor, patch: int, channel_first: bool = False) -> Tensor:
    """Return what `patchify` does, unchecked."""
    pattern = f"... c (h p) (w q) -> ... (h w) {_VALUES[channel_first]}"
    return rearrange(latents, pattern, p=patch, q=patch)


def unpatchify(
    tokens: Float[Tensor, "*b n d"],
    grid: tuple[int, int],
    patch: int,
    *,
    channel_first: bool = False,
) -> Float[Tensor, "*b c h w"]:
    """Put tokens back together; the inverse of `patchify`.

    Args:
        tokens: [..., n, patch * patch * c].
        grid: (rows, columns) of tokens; their product is n.
        patch: side of a patch.
        channel_first: as in `patchify`.

    Raises:
        ValueError: a grid of another number of tokens, or tokens that hold no whole patches.
    """
    check_size("patch", patch)
    check_instance("channel_first", channel_first, bool)
    check_grid("grid", grid)
    check_tensor("tokens", tokens, (..., None, None), "[..., n, d]")
    if grid[0] * grid[1] != tokens.shape[-2]:
        raise bad("grid", grid, f"one of the {tokens.shape[-2]} tokens")
    if tokens.shape[-1] % patch**2:
        raise bad("tokens", f"of {tokens.shape[-1]} values", f"a multiple of {patch}² values")
    pattern = f"... (h w) {_VALUES[channel_first]} -> ... c (h p) (w q)"
    return rearrange(tokens, pattern, h=grid[0], p=patch, q=patch)
