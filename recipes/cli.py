"""The command line: demo, generate, info, evaluate; others in `recipes._cli`."""

import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import tyro

from contar._errors import bad, check_count, check_text
from recipes._cli import bench as bench_commands
from recipes._cli import training
from recipes._cli.editing import edit
from recipes._cli.pipes import load_pipeline, seeded


def demo(out: Path = Path("demo"), seed: int = 0) -> None:
    """Let the model that contar carries make a video of handwritten digits for each of 8 prompts.

    Args:
        out: folder for the video, the animation and the contact sheet.
        seed: of all that is random.
    """
    import torch
    from einops import rearrange

    from contar.media import save_sheet, write_video
    from recipes import nova
    from recipes.moving_digits import PROMPTS

    start, draws = time.monotonic(), seeded(seed)
    out.mkdir(parents=True, exist_ok=True)
    pipe = nova.from_pretrained("moving-digits", dtype=torch.float32)
    clips = pipe(list(PROMPTS), generator=draws, output_type="pt").frames
    pixels = (clips * 255).round().byte().repeat_interleave(2, 3).repeat_interleave(2, 4)
    tiled = rearrange(pixels, "(r c) t k h w -> t (r h) (c w) k", c=4)
    fps = pipe.config["defaults"]["fps"]
    video = write_video(tiled, out / "moving-digits.mp4", fps=fps)
    animation = write_video(tiled, out / "moving-digits.gif", fps=fps)
    frames = clips.transpose(1, 2)[:, :, ::4]
    sheet = save_sheet(frames, out / "moving-digits.png", labels=list(PROMPTS))
    print(f"{len(PROMPTS)} prompts, {time.monotonic() - start:.0f} s in all.")
    print(f"A row a prompt, a column every fourth frame: {sheet}")
    print(f"All of them, moving: {video} and {animation}")


def generate(
    prompt: tyro.conf.Positional[str],
    model: str = "moving-digits",
    out: Path = Path("nova.mp4"),
    frames: int | None = None,
    chunk: int | None = None,
    overlap: int | None = None,
    steps: int | None = None,
    diffusion_steps: int | None = None,
    guidance: float | None = None,
    negative: str | None = None,
    motion_flow: float | None = None,
    fps: float | None = None,
    seed: int = 0,
    image: Path | None = None,
    video: Path | None = None,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    heads: tuple[int, int] | None = None,
    tiling: bool = False,
    live: bool = False,
) -> None:
    """Generate an image or a video from words; what is not given is the model's own default.

    Args:
        prompt: what to show; "" leaves it to the model.
        model: "moving-digits", which contar carries; folder of a pipeline, ours or in the released
            layout; or its id on the hub.
        out: file to write: .mp4, .gif, or .png of one frame.
        frames: of the result, given ones included.
        chunk: frames of a clip that the model learned (17 for moving-digits), for longer videos:
            after them it begins anew with the last ones. None if left out.
        overlap: latent frames that a chunk begins with, of as many frames each as the tokenizer
            puts together (4 for moving-digits); 2 if left out.
        steps: sets in which each frame's tokens are generated.
        diffusion_steps: of each set.
        guidance: scale of classifier-free guidance.
        negative: what guidance leads away from.
        motion_flow: optical flow score, how much moves.
        fps: frames per second, of the motion and of the file.
        seed: of all that is random.
        image: picture file to start from, cut to the model's shape.
        video: video file to go on from: its last frames, at most half of `frames`, taken at the
            rate `fps` and cut likewise.
        device: the GPU if there is one.
        dtype: of the weights; bfloat16 on a GPU, else float32.
        heads: attention heads (temporal, spatial) of a network in the released layout whose
            architecture is not a released one.
        tiling: encode and decode large frames in tiles, for memory.
        live: decode and write each frame as it is finished, and count frames; stopped by Ctrl-C,
            the file holds those so far.
    """
    from contar.media import (
        check_output,
        fit_frames,
        read_image,
        read_tail,
        read_video,
        write_video,
    )
    from contar.tokenizers import VAETokenizer, longest_clip

    check_text("prompt", prompt)
    if negative is not None:
        check_text("negative", negative)
    check_output(out, fps=fps, frames=frames, name="out")
    draws = seeded(seed)
    picture = None if image is None else read_image(image, name="image")[None]
    if video is not None:
        read_video(video, frames=1, name="video")  # whether it is one
    pipe = load_pipeline(model, device, dtype, heads, tiling)
    tokenizer, defaults = VAETokenizer(pipe.vae), pipe.config["defaults"]
    count = defaults["num_frames"] if frames is None else frames
    rate = defaults["fps"] if fps is None else fps
    latents = tokenizer.latent_frames(count, "frames")
    changes = None
    if chunk is not None:
        changes = {"overlap": 2 if overlap is None else check_count("overlap", overlap)}
        changes["chunk"] = tokenizer.latent_frames(chunk, "chunk")
        if changes["chunk"] <= changes["overlap"]:
            allowed = (
                f"more than {tokenizer.pixel_frames(changes['overlap'])}, those of the overlap"
            )
            raise bad("chunk", chunk, allowed)
    elif overlap is not None:
        raise bad("overlap", overlap, "none without a chunk")
    check_output(out, fps=rate, frames=count, name="out")
    height, width = (side * tokenizer.space_stride for side in pipe.transformer.sizes.latent)
    given = {}
    if picture is not None:
        given["image"] = fit_frames(picture, height, width)[0]
    if video is not None:
        most = max(1, latents // 2)
        most = most if changes is None else min(most, changes["chunk"])
        length = longest_clip(tokenizer, tokenizer.pixel_frames(most))
        given["video"] = fit_frames(read_tail(video, length, fps=rate, name="video"), height, width)
    options: dict[str, Any] = dict(
        num_frames=count,
        num_inference_steps=steps,
        num_diffusion_steps=diffusion_steps,
        guidance_scale=guidance,
        negative_prompt=negative,
        motion_flow=motion_flow,
        fps=fps,
        generator=draws,
        plan_changes=changes,
        **given,
    )
    if live:
        pipe.set_progress_bar_config(disable=True)
        _write_live(pipe.stream(prompt, **options), out, fps=rate, count=count)
    else:
        write_video(pipe(prompt, **options).frames[0], out, fps=rate)
    print(f"{count} frames of {width} x {height}: {out}")


def _write_live(pieces: Iterable[Any], out: Path, *, fps: float, count: int) -> None:
    """Write frames as they come; stopped by Ctrl-C or SIGTERM, say so, with exit status 130."""
    from tqdm import tqdm

    from contar.media import write_video

    def counted() -> Iterator[Any]:
        for piece in pieces:
            for frame in piece:
                bar.update()
                yield frame

    bar = tqdm(total=count, unit="frame")
    usual = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with bar:
            write_video(counted(), out, fps=fps)
    except KeyboardInterrupt:
        kept = f"the frames that were finished are in {out}" if bar.n else "nothing is written"
        print(f"contar: stopped: {kept}", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGTERM, usual)


def info(
    model: tyro.conf.Positional[str] = "nova-d48w1024-osp480",
    frames: int | None = None,
    heads: tuple[int, int] | None = None,
) -> None:
    """Print what a model is made of and what memory it needs; no weights are read.

    Args:
        model: folder of a pipeline, ours or in the released layout, or a preset's name.
        frames: that memory is stated for; the model's own default if left out.
        heads: as in `generate`.
    """
    from recipes._nova import info

    print(info.describe(model, frames=frames, num_heads=heads))


def evaluate(
    model: tyro.conf.Positional[str] = "moving-digits",
    out: Path = Path("scores"),
    count: int = 200,
    seed: int = 1000,
    fast: bool = False,
    lengths: tuple[int, ...] = (),
) -> None:
    """Judge a pipeline of moving digits on prompts that training never saw; print a table.

    With `--lengths 1 2 3 6` it is judged how far videos drift that are so many times as long as
    what it learned, segment by segment, by each way of making them.

    Args:
        model: "moving-digits", or folder of the pipeline.
        out: folder for the scores as JSON, their picture, and a line for each clip.
        count: clips asked for, in each task.
        seed: of the clips.
        fast: in a quarter of the sets, but four if there are so many, and few steps of each.
        lengths: of the videos, in clips of the learned length, rising.
    """
    import torch

    from recipes import nova
    from recipes.moving_digits import evaluate_pipeline, measure_drift

    pipe = nova.from_pretrained(model, dtype=torch.float32)
    pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    if lengths:
        if fast:
            raise bad("fast", True, "False beside lengths")
        print(measure_drift(pipe, out, lengths=lengths, count=count, seed=seed).table())
        print(f"drift.json, drift.md and drift.png: {out}")
        return
    report = evaluate_pipeline(pipe, out, count=count, seed=seed, fast=fast)
    print(report.table())
    print(f"scores.json and scores.png: {out}")


def train() -> None:
    """Train a recipe: `contar train moving-digits --out RUN`; `contar train --help` says more."""


def bench() -> None:
    """Measure a part of one's own size: `contar bench heads`; its `--help` says more."""


def main() -> None:
    """Run the command line; a bad argument or file ends it with the message and exit status 1."""
    commands: dict[str, Callable[..., None]] = {
        "demo": demo, "generate": generate, "edit": edit, "info": info, "evaluate": evaluate,
        "train": train, "bench": bench,
    }  # fmt: skip
    program, words = "contar", sys.argv[1:]
    if words[:1] == ["train"]:  # the import of recipes takes seconds
        commands, program, words = training.recipes(), "contar train", words[1:]
    else:
        commands |= {"cache": training.cache, "compare": training.compare}
    if words[:1] == ["compare"]:
        commands["compare"] = training.comparison()
    try:
        if words[:2] == ["bench", "heads"]:
            return tyro.cli(bench_commands.heads, prog="contar bench heads", args=words[2:])
        tyro.extras.subcommand_cli_from_dict(commands, prog=program, args=words)
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"contar: {error}") from None


if __name__ == "__main__":
    main()
