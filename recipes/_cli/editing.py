"""The command line of editing."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from contar._errors import bad, check_text
from recipes._cli.pipes import load_pipeline, seeded


def edit(
    given: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")],
    out: Path,
    mask: Path | None = None,
    prompt: str = "",
    canvas: tuple[int, int, int, int] | None = None,
    grow: int = 1,
    model: str = "moving-digits",
    frames: int | None = None,
    steps: int | None = None,
    diffusion_steps: int | None = None,
    guidance: float | None = None,
    negative: str | None = None,
    motion_flow: float | None = None,
    fps: float | None = None,
    seed: int = 0,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    heads: tuple[int, int] | None = None,
    tiling: bool = False,
) -> None:
    """Make a part of a picture or of a video anew; the rest comes back as it was.

    Args:
        given: the picture or video, cut to the model's shape.
        out: file to write: .mp4, .gif, or .png of one frame.
        mask: picture or video of the same size, white where it is to be made anew; a picture is of
            every frame.
        prompt: what to show; "" leaves it to the model.
        canvas: pixels that are added at the top, right, bottom and left, and made anew.
        grow: tokens by which the mask grows on each side, where both fade into each other.
        model: as in `generate`.
        frames: of the result; more than there are go on from them. If left out those of the video,
            as many as the model makes, or the one of the picture.
        steps: sets in which each frame's tokens are generated.
        diffusion_steps: of each set.
        guidance: scale of classifier-free guidance.
        negative: what guidance leads away from.
        motion_flow: optical flow score, how much moves.
        fps: frames per second, of the motion and of the file, which otherwise has the video's.
        seed: of all that is random.
        device: the GPU if there is one.
        dtype: of the weights; bfloat16 on a GPU, else float32.
        heads: as in `generate`.
        tiling: encode and decode large frames in tiles, for memory.
    """
    from contar.media import check_output, fit_frames, write_video
    from contar.tokenizers import VAETokenizer, longest_clip

    for name, text in (("prompt", prompt), ("negative", negative or "")):
        check_text(name, text)
    check_output(out, fps=fps, frames=frames, name="out")
    draws = seeded(seed)
    if mask is None and canvas is None:
        raise bad("mask", None, "a file, or a canvas")
    clip, rate = _read("in", given)
    white, _ = (None, None) if mask is None else _read("mask", mask)
    if white is not None and white.shape[1:] != clip.shape[1:]:
        got, allowed = (f"{x.shape[2]} x {x.shape[1]} pixels" for x in (white, clip))
        raise bad("mask", got, f"{allowed}, as {given}")
    if white is not None and len(white) not in (1, len(clip)):
        raise bad("mask", f"{len(white)} frames", f"1, or {len(clip)}, as {given}")
    pipe = load_pipeline(model, device, dtype, heads, tiling)
    tokenizer, defaults = VAETokenizer(pipe.vae), pipe.config["defaults"]
    most = len(clip) if rate is None else min(len(clip), defaults["num_frames"])
    count = longest_clip(tokenizer, most) if frames is None else frames
    rate = fps or rate or defaults["fps"]
    tokenizer.latent_frames(count, "frames")
    check_output(out, fps=rate, frames=count, name="out")
    clip = clip[: longest_clip(tokenizer, min(len(clip), count))]
    top, right, bottom, left = canvas or (0, 0, 0, 0)
    height, width = (side * tokenizer.space_stride for side in pipe.transformer.sizes.latent)
    size = (height - top - bottom, width - left - right)
    if min(size) < 1:
        raise bad("canvas", canvas, f"less than the result's {height} x {width} pixels")
    if white is not None:
        white = fit_frames(white[: len(clip)], *size).float().mean(-1).round().byte()
        white = white[0] if len(white) == 1 else white
    result = pipe(
        prompt,
        video=fit_frames(clip, *size),
        mask=white,
        canvas=canvas,
        grow=grow,
        num_frames=count,
        num_inference_steps=steps,
        num_diffusion_steps=diffusion_steps,
        guidance_scale=guidance,
        negative_prompt=negative,
        motion_flow=motion_flow,
        fps=fps,
        generator=draws,
    )
    write_video(result.frames[0], out, fps=rate)
    print(f"{count} frames of {width} x {height}: {out}")


def _read(name: str, file: Path):
    """Return the frames of a picture or a video, and the latter's rate."""
    from contar.media import read_image, read_video

    if file.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"):
        return read_image(file, name=name)[None], None
    return read_video(file, name=name)
