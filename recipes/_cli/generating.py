"""The command line of generation."""

import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from recipes._cli.names import name_files, read_prompts
from recipes._cli.pipes import Asked, Options, Shape, check_apart, check_replaced, seeded

_MANY = 8  # times what a model learned, from which on frames at once are warned of

if TYPE_CHECKING:
    from contar._typing import Tensor
    from recipes.nova import NovaPipeline


def generate(
    prompt: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT ...")
    ] = (),
    prompts: Path | None = None,
    prompt_at: tyro.conf.UseAppendAction[tuple[tuple[int, str], ...]] = (),
    count: int = 1,
    out: Path = Path("nova.mp4"),
    frames: int | None = None,
    chunk: int | None = None,
    overlap: int | None = None,
    image: Path | None = None,
    video: Path | None = None,
    live: bool = False,
    asked: Options[Asked] = Asked(),
) -> None:
    """Generate images or videos from words; what is not given is the model's own default.

    Each file is what its prompt and seed make alone, whatever else is asked for.

    Args:
        prompt: what to show, a file for each; "" leaves it to the model.
        prompts: a text file with a prompt in each line, or - for the standard input.
        prompt_at: a frame and what is to happen from it on, as 9 "a seven moves up", once or more.
        count: samples of each prompt; their seeds are `seed` and those after it.
        out: file to write: .mp4, .gif, or .png of one frame; an older one of that kind is replaced,
            and another file is not. Of several files a pattern with
            {number}, {prompt}, {sample} or {seed}, as videos/{number:03}-{prompt}.mp4; without one
            their number stands behind the name.
        frames: of the result, given ones included.
        chunk: frames of a clip that the model learned (17 for moving-digits), for longer videos:
            after them it begins anew with the last ones. None if left out.
        overlap: latent frames that a chunk begins with, of as many frames each as the tokenizer
            puts together (4 for moving-digits); 2 if left out.
        image: picture file to start from, cut to the model's shape.
        video: video file to go on from: its last frames, at most half of `frames`, taken at the
            rate `fps` and cut likewise.
        live: decode and write each frame as it is finished, and count frames; stopped by Ctrl-C,
            the file holds those so far.
        asked: of the model.
    """
    from contar._errors import bad
    from contar.media import check_output, read_image, read_video, write_video

    wanted = name_files(out, read_prompts(prompt, prompts), count=count, seed=asked.seed)
    _check(asked, frames, chunk, overlap, prompt_at)
    if image is not None and video is not None:
        raise bad("video", "a video and an image", "one of the two")
    for each in wanted:
        check_output(each.file, fps=asked.fps, frames=frames, name="out")
        check_apart(each.file, prompts, image, video)
        check_replaced(each.file)
        seeded(each.seed)
    shown = picture = None if image is None else read_image(image, name="image")[None]
    if video is not None:
        shown, _ = read_video(video, frames=1, name="video")  # whether it is one
    asked.warn_of_light("image" if video is None else "video", shown)
    asked.warn([each.prompt for each in wanted], shown=shown is not None, moving=frames != 1)
    asked.warn([text for _, text in prompt_at], shown=True)
    pipe = asked.load()
    shape = Shape.of(pipe, frames, asked.fps)
    usual = pipe.config["defaults"]["num_frames"]
    if chunk is None and not live and shape.frames > _MANY * usual:
        told = f"{shape.frames} at once take memory and ever more time a frame; --chunk makes them"
        print(f"contar: --frames: {told} {usual} at a time, and --live shows them", file=sys.stderr)
    changes = _chunks(pipe, shape.frames, chunk, overlap)
    for each in wanted:
        check_output(each.file, fps=shape.fps, frames=shape.frames, name="out")
    options = {"num_frames": shape.frames, **asked.options(pipe, changes)}
    options |= _given(pipe, shape, picture, video, changes)
    for number, each in enumerate(wanted, 1):
        begun, options["generator"] = time.monotonic(), seeded(each.seed)
        text: Any = [(0, each.prompt), *prompt_at] if prompt_at else each.prompt
        title = each.file.name if len(wanted) == 1 else f"{number}/{len(wanted)} {each.file.name}"
        pipe.set_progress_bar_config(desc=title, unit="set", disable=live)
        if live:
            _write_live(pipe.stream(text, **options), each.file, shape, title)
        else:
            write_video(pipe(text, **options).frames[0], each.file, fps=shape.fps)
        more = {"prompt_at": list(prompt_at), "sample": each.sample, "seed": each.seed}
        shape.say(each.file, begun, asked, prompt=each.prompt, **more)


def _check(
    asked: Asked, frames: int | None, chunk: int | None, overlap: int | None,
    prompt_at: Sequence[tuple[int, str]],
) -> None:  # fmt: skip
    """Raise for what is wrong whatever the model is, before it is read."""
    from contar._errors import bad, check_count, check_text

    asked.check()
    for name, number in {"frames": frames, "overlap": overlap, "chunk": chunk}.items():
        if number is not None:
            check_count(name, number)
    if overlap is not None and chunk is None:
        raise bad("overlap", overlap, "none without a chunk")
    for frame, text in prompt_at:
        check_count("prompt_at", frame, 0)
        check_text("prompt_at", text)


def _chunks(
    pipe: "NovaPipeline", frames: int, chunk: int | None, overlap: int | None
) -> dict[str, int]:
    """Return what a plan says of chunks, in latent frames.

    Raises:
        ValueError: frames or a chunk that the tokenizer cannot make, or an overlap that is not
            shorter than a chunk.
    """
    from contar._errors import bad
    from contar.tokenizers import VAETokenizer

    tokenizer = VAETokenizer(pipe.vae)
    tokenizer.latent_frames(frames, "frames")
    if chunk is None:
        return {}
    shared = 2 if overlap is None else overlap
    latents = tokenizer.latent_frames(chunk, "chunk")
    if latents <= shared:
        allowed = f"more than {tokenizer.pixel_frames(shared)}, those of the overlap"
        raise bad("chunk", chunk, allowed)
    return {"chunk": latents, "overlap": shared}


def _given(
    pipe: "NovaPipeline", shape: Shape, picture: "Tensor | None", video: Path | None,
    changes: Mapping[str, int],
) -> dict[str, Any]:  # fmt: skip
    """Return given first frames, cut to the model's shape, as arguments of the pipeline.

    Raises:
        ValueError: they are all that is asked for; else as `read_tail`.
    """
    from contar._errors import bad
    from contar.media import fit_frames, read_tail
    from contar.tokenizers import VAETokenizer, longest_clip

    given, size = {}, (shape.height, shape.width)
    if shape.frames == 1 and (picture is not None or video is not None):
        raise bad("frames", 1, "more than the one that is given")
    if picture is not None:
        given["image"] = fit_frames(picture, *size)[0]
    if video is not None:
        tokenizer = VAETokenizer(pipe.vae)
        most = max(1, tokenizer.latent_frames(shape.frames) // 2)
        most = min(most, changes.get("chunk", most))
        length = longest_clip(tokenizer, tokenizer.pixel_frames(most))
        given["video"] = fit_frames(read_tail(video, length, fps=shape.fps, name="video"), *size)
    return given


def _write_live(pieces: Iterable[Any], out: Path, shape: Shape, title: str) -> None:
    """Write frames as they come; stopped by Ctrl-C or SIGTERM, say so, with exit status 130."""
    from tqdm import tqdm

    from contar.media import write_video

    bar = tqdm(total=shape.frames, desc=title, unit="frame")

    def counted() -> Iterator[Any]:
        for frame in chain.from_iterable(pieces):
            bar.update()
            yield frame

    usual = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with bar:
            write_video(counted(), out, fps=shape.fps)
    except KeyboardInterrupt:
        kept = f"the frames that were finished are in {out}" if bar.n else "nothing is written"
        print(f"contar: stopped: {kept}", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGTERM, usual)
