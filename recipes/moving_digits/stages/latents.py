"""Bouncing digits as latents: drawn, encoded and scored many at once, once for a run."""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from contar._typing import Float, Tensor
from contar.conditioning import encode_texts
from contar.media import frames_to_pixels, motion_score
from contar.tokenizers import CausalVAE, VAETokenizer
from contar.training import Latents, fingerprint, processes
from recipes.moving_digits.data.bouncing import BouncingDigits

# A digit moves evenly, so its first pairs of frames say as much as all: the scores of 80 clips
# correlate to 0.99999 and take a quarter of the time.
_SCORED = 5
_CHUNK = 512
Scores = Callable[[], Float[Tensor, " n"]]


@contextmanager
def scored(digits: BouncingDigits, wait: bool = False) -> Iterator[Scores]:
    """Score motion in processes of their own, while a GPU trains; give how to get the scores.

    Args:
        digits: the clips.
        wait: begin when they are asked for, as where there is no GPU.
    """
    starts = range(0, len(digits), _CHUNK)
    workers = (os.cpu_count() or 1) - 2
    fast = torch.cuda.is_available() and processes().is_main_process
    if wait or workers < 2 or not fast:
        yield lambda: torch.cat([_score(digits, start) for start in starts])
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_alone)
    running = [pool.submit(_score, digits, start) for start in starts]
    try:
        yield lambda: torch.cat([future.result() for future in running])
    finally:
        pool.shutdown(cancel_futures=True)


def _alone() -> None:
    import cv2

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _score(digits: BouncingDigits, start: int) -> Float[Tensor, " n"]:
    drawn = digits.draw(range(start, min(start + _CHUNK, len(digits))))
    grey = digits.show(drawn._replace(course=drawn.course[:, :_SCORED]))
    clips = grey[..., None].expand(-1, -1, -1, -1, 3)
    return torch.tensor(list(map(motion_score, clips)), dtype=torch.float32, device="cpu")


def digits_latents(
    digits: BouncingDigits,
    vae: CausalVAE,
    words: Any,
    encoder: Any,
    out: Path,
    *,
    scores: Scores,
    length: int,
    fps: float,
) -> Latents:
    """Encode clips; what is there already in `out` is checked and taken.

    Args:
        digits: the clips.
        vae: tokenizer of pixels.
        words: tokenizer of texts, for their encoder.
        encoder: of texts.
        out: folder, made if it is not there.
        scores: of `scored`, asked only where the clips are encoded.
        length: most tokens of a caption.
        fps: frames per second of the clips.

    Raises:
        ValueError: latents of other clips, or made with another tokenizer or text encoder.
    """
    made_with = {
        "data": f"bouncing digits, {len(digits)} of {digits.split}, seed {digits.seed}, "
        f"{digits.frames} frames, {digits.cut:g} cut",
        "tokenizer": fingerprint(vae),
        "text_encoder": fingerprint(encoder),
    }
    with processes().main_process_first():
        if not (out / "latents.json").exists():
            out.mkdir(parents=True, exist_ok=True)
            made = _encode(digits, vae, words, encoder, scores(), length, fps, made_with)
            made.save(out)
    return Latents.load(out, made_with=made_with)


@torch.no_grad()
def _encode(
    digits: BouncingDigits, vae: CausalVAE, words: Any, encoder: Any,
    scores: Tensor, length: int, fps: float, made_with: dict[str, Any],
) -> Latents:  # fmt: skip
    tokenizer, device = VAETokenizer(vae), vae.device
    shift, scale = (x.to(device).view(-1, 1, 1, 1) for x in (tokenizer.shift, tokenizer.scale))
    moments, begins, captions = [], [], []
    for start in tqdm(range(0, len(digits), _CHUNK // 2), desc="latents"):
        drawn = digits.draw(range(start, min(start + _CHUNK // 2, len(digits))), device)
        pixels = frames_to_pixels(digits.show(drawn)[..., None]).expand(-1, 3, -1, -1, -1)
        with torch.autocast(device.type, torch.bfloat16):
            posterior: Any = vae.encode(pixels, return_dict=False)[0]
        mean, deviation = posterior.mean.float(), (0.5 * posterior.logvar.float()).exp()
        made = torch.cat([(mean - shift) * scale, deviation * scale], dim=1)
        moments.append(made.half().cpu())
        begins.append(drawn.begins.cpu())
        captions += digits.captions(drawn)
    texts, states = list(dict.fromkeys(captions)), []
    for start in tqdm(range(0, len(texts), 2 * _CHUNK), desc="captions"):
        made = encode_texts(texts[start : start + 2 * _CHUNK], words, encoder, length=length)
        states += [state.half().cpu() for state in made]
    padded = torch.nn.utils.rnn.pad_sequence(states, batch_first=True)
    number = {text: i for i, text in enumerate(texts)}
    joined = torch.cat(moments)
    digest = hashlib.sha256(joined[:: max(1, len(joined) // 64)].numpy().tobytes())
    return Latents(
        moments=joined,
        texts=torch.nn.functional.pad(padded, (0, 0, 0, length - padded.shape[1])),
        lengths=torch.tensor([len(state) for state in states], device="cpu"),
        text_of=torch.tensor([number[caption] for caption in captions], device="cpu"),
        motion_flow=scores,
        fps=torch.full((len(joined),), fps, dtype=torch.float32, device="cpu"),
        begins=torch.cat(begins),
        made_with=made_with,
        fingerprint=digest.hexdigest()[:16],
    )
