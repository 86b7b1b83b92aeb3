"""The command line of editing."""

import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from recipes._cli.pipes import Asked, Options, Shape, check_apart, check_replaced, seeded

if TYPE_CHECKING:
    from contar._typing import Tensor
    from recipes.nova import NovaPipeline


def edit(
    given: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")],
    out: Path,
    mask: Path | None = None,
    prompt: str = "",
    canvas: tuple[int, int, int, int] | None = None,
    grow: int = 1,
    frames: int | None = None,
    asked: Options[Asked] = Asked(),
) -> None:
    """Make a part of a picture or of a video anew; the rest comes back as it was.

    Args:
        given: the picture or video, cut to the model's shape.
        out: file to write: .mp4, .gif, or .png of one frame; an older one of that kind is replaced,
            and another file is not.
        mask: picture or video of the same size, white where it is to be made anew; a picture is of
            every frame.
        prompt: what to show; "" leaves it to the model.
        canvas: pixels that are added at the top, right, bottom and left, and made anew.
        grow: tokens by which the mask grows on each side, where both fade into each other.
        frames: of the result; more than there are go on from them. If left out the first ones of
            the video, as many as the model makes, or the one of the picture. Others are not read.
        asked: of the model; left out, the rate is the video's.
    """
    from contar._errors import bad, check_count, check_text
    from contar.media import check_output, write_video

    check_text("prompt", prompt)
    asked.check()
    check_count("grow", grow, 0)
    if frames is not None:
        check_count("frames", frames)
    check_output(out, fps=asked.fps, frames=frames, name="out")
    check_apart(out, given, mask)
    check_replaced(out)
    draws = seeded(asked.seed)
    if mask is None and not any(canvas or ()):
        raise bad("mask", None, "a file, or a canvas that adds pixels")
    clip, _ = _read("in", given, 2)  # whether they are what they should be
    if mask is not None:
        _read_mask(mask, clip[:1], given, 1)
    asked.warn_of_light("in", clip)
    asked.warn([prompt], shown=True, moving=len(clip) > 1 or frames not in (None, 1))
    pipe = asked.load()
    most = frames or pipe.config["defaults"]["num_frames"]
    clip, rate = _read("in", given, most)
    white = None if mask is None else _read_mask(mask, clip, given, most)
    shape, parts = _fit(pipe, clip, white, frames, asked.fps or rate, canvas)
    check_output(out, fps=shape.fps, frames=shape.frames, name="out")
    begun = time.monotonic()
    pipe.set_progress_bar_config(desc=out.name, unit="set")
    result = pipe(
        prompt, canvas=canvas, grow=grow, num_frames=shape.frames, generator=draws, **parts,
        **asked.options(pipe, {}),
    )  # fmt: skip
    write_video(result.frames[0], out, fps=shape.fps)
    shape.say(out, begun, asked, prompt=prompt, seed=asked.seed)


def _fit(
    pipe: "NovaPipeline",
    clip: "Tensor",
    white: "Tensor | None",
    frames: int | None,
    fps: float | None,
    canvas: tuple[int, int, int, int] | None,
) -> tuple[Shape, dict[str, Any]]:
    """Return the result's shape, and clip and mask as the pipeline takes them, cut to it.

    The clip is uint8 [t, h, w, 3], and so is what is white where it is made anew, t or 1.

    Raises:
        ValueError: frames that the tokenizer cannot make, or a canvas that leaves no pixel.
    """
    from contar._errors import bad
    from contar.media import fit_frames
    from contar.tokenizers import VAETokenizer, longest_clip

    tokenizer = VAETokenizer(pipe.vae)
    if frames is None:
        most = min(len(clip), pipe.config["defaults"]["num_frames"])
        frames = longest_clip(tokenizer, most)
    tokenizer.latent_frames(frames, "frames")
    clip = clip[: longest_clip(tokenizer, min(len(clip), frames))]
    shape = Shape.of(pipe, frames, fps)
    top, right, bottom, left = canvas or (0, 0, 0, 0)
    size = (shape.height - top - bottom, shape.width - left - right)
    if min(size) < 1:
        allowed = f"less than the result's {shape.height} x {shape.width} pixels"
        raise bad("canvas", canvas, allowed)
    if white is not None:
        white = fit_frames(white[: len(clip)], *size).float().mean(-1).round().byte()
        white = white[0] if len(white) == 1 else white
    return shape, {"video": fit_frames(clip, *size), "mask": white}


def _read_mask(file: Path, clip: "Tensor", given: Path, most: int) -> "Tensor":
    """Return a mask's frames, of the size of a clip; ValueError if they are of another."""
    from contar._errors import bad

    white, _ = _read("mask", file, most)
    if white.shape[1:] != clip.shape[1:]:
        got, allowed = (f"{x.shape[2]} x {x.shape[1]} pixels" for x in (white, clip))
        raise bad("mask", got, f"{allowed}, as {given}")
    if len(white) not in (1, len(clip)):
        raise bad("mask", f"{len(white)} frames", f"1, or {len(clip)}, as {given}")
    return white


def _read(name: str, file: Path, most: int) -> "tuple[Tensor, float | None]":
    """Return the frames of a picture or a video, `most` at most, and the latter's rate."""
    from contar.data import PICTURES
    from contar.media import open_video, read_image, read_video

    if file.suffix.lower() in PICTURES:
        return read_image(file, name=name)[None], None
    there = sum(1 for _ in islice(open_video(file, name).frames(), most))  # without their pixels
    return read_video(file, frames=max(1, there), name=name)
