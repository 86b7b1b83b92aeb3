"""The task of the video variants: clips of moving digits, by caption, as a tokenizer's latents."""

from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from contar._random import seeded, uniform
from contar._typing import Float, Tensor
from contar.conditioning import encode_texts
from contar.data import Cache, write_cache
from contar.media import pixels_to_frames
from contar.tokenizers import CausalVAE, VAETokenizer
from contar.training import Clip, Latents, encode_clips, fingerprint, processes
from recipes import nova
from recipes.moving_digits import (
    FPS,
    DigitJudge,
    MovingDigits,
    direction_of,
    frechet_frames,
    network,
)
from recipes.variants.canvas import DROP


class MovingClips:
    """Batches of latents by step, and how well generated clips do what their captions say.

    Args:
        model: pipeline whose tokenizer and text encoder are taken.
        folder: for the latents, which are made if they are not there.
        clips: to train on.
    """

    def __init__(self, model: str, folder: Path, clips: int = 4000) -> None:
        pipe = nova.from_pretrained(model, dtype=torch.float32)
        self.tokenizer = VAETokenizer(pipe.vae)
        cache = digits_cache(clips, pipe.vae, pipe.tokenizer, pipe.text_encoder, folder)
        data = Latents.of(cache)
        self.latents = data.moments.float().chunk(2, dim=1)[0]
        texts = zip(data.texts.float(), data.lengths.tolist(), strict=True)
        self.texts = [text[:length] for text, length in texts]
        self.asks = MovingDigits("validation", 10_000, seed=1)
        self.encoders = (pipe.tokenizer, pipe.text_encoder)

    def batch(self, seed: int, step: int, size: int) -> tuple[Tensor, list[Tensor]]:
        """Return latents and text states of a step: the same for every variant of equal seed."""
        draws = seeded(seed, "batch", step)
        rows = torch.randint(len(self.texts), (size,), generator=draws, device="cpu").tolist()
        dropped = (uniform(size, generator=draws) < DROP).tolist()
        texts = [self.texts[row] for row in rows]
        kept = [text[:0] if drop else text for text, drop in zip(texts, dropped, strict=True)]
        return self.latents[rows], kept

    def asked(self, first: int, count: int) -> list[Tensor]:
        """Return the text states of samples."""
        captions = [self.asks[index].caption for index in range(first, first + count)]
        return encode_texts(captions, *self.encoders, length=network(1).text_length)

    def frames(self, made: Float[Tensor, "b c t h w"]) -> Tensor:
        """Return generated latents as clips, uint8 [b, t, h, w, 3].

        Raises:
            ValueError: NaN or infinite latents or pixels.
        """
        return pixels_to_frames(self.tokenizer.decode(made))

    def judged(self, made: Float[Tensor, "b c t h w"], judge: DigitJudge) -> dict[str, float]:
        """Return the shares of right digits and directions, and the distance from real frames."""
        clips, asks = self.frames(made), [self.asks[index] for index in range(len(made))]
        wanted = torch.tensor([ask.digit for ask in asks], device="cpu")
        ways = [direction_of(clip) == ask.direction for clip, ask in zip(clips, asks, strict=True)]
        others = torch.stack([ask.frames for ask in asks])
        near = frechet_frames(judge, others[:, ::4].flatten(0, 1), clips[:, ::4].flatten(0, 1))
        digit = (judge.majority(clips) == wanted).float().mean()
        return {"digit": float(digit), "direction": sum(ways) / len(ways), "frechet": near}

    def sheet(self, made: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b2 3 t2 h2 w2"]:
        """Return a few clips in [0, 1]."""
        return self.frames(made[:8])[:, ::4].permute(0, 4, 1, 2, 3).float() / 255


def digits_cache(count: int, vae: CausalVAE, words: Any, encoder: Any, out: Path) -> Cache:
    """Encode the training clips once; a cache that is there already is checked and taken."""
    made_with = {
        "data": f"moving-digits, {count} of train",
        "tokenizer": fingerprint(vae),
        "text_encoder": fingerprint(encoder),
    }
    with processes().main_process_first():
        if not out.exists():
            digits = MovingDigits("train", count)
            clips = (Clip(digits[i].frames, digits[i].caption, FPS) for i in range(count))
            parts = (VAETokenizer(vae), words, encoder)
            length = network(1).text_length
            samples = encode_clips(clips, *parts, length=length, precision="bf16")
            shown = (sample for sample in tqdm(samples, total=count, desc="cache"))
            write_cache(shown, out, made_with=made_with)
    return Cache(out, made_with=made_with)
