"""The task of the video variants: clips of moving digits, by caption, as a tokenizer's latents."""

from pathlib import Path
from typing import Any

import torch

from contar._random import seeded
from contar._typing import Float, Tensor
from contar.conditioning import encode_texts
from contar.data import MovingDigits
from contar.evaluation import DigitJudge, direction_of, frechet_frames
from contar.tokenizers.vae import VAETokenizer
from recipes import nova
from recipes.digits_latents import digits_latents, start_scores
from recipes.moving_digits import FPS, network


class MovingClips:
    """Batches of latents by step, and how well generated clips do what their captions say.

    Args:
        model: pipeline whose tokenizer and text encoder are taken.
        folder: for the latents, which are made if they are not there.
        clips: to train on.
        label_drop: share of the captions that are left out, for guidance.
    """

    def __init__(
        self, model: str, folder: Path, clips: int = 4000, label_drop: float = 0.1
    ) -> None:
        pipe = nova.from_pretrained(model, dtype=torch.float32)
        self.tokenizer, self.label_drop = VAETokenizer(pipe.vae), label_drop
        digits = MovingDigits("train", clips)
        parts: Any = (digits, pipe.vae, pipe.tokenizer, pipe.text_encoder, folder)
        length = network(1).text_length
        data = digits_latents(*parts, scores=start_scores(digits), length=length, fps=FPS)
        self.latents = data.moments.float().chunk(2, dim=1)[0]
        texts = data.texts.float()
        self.texts = [texts[row, : data.lengths[row]] for row in data.text_of.tolist()]
        self.asks = MovingDigits("validation", 10_000, seed=1)
        self.encoders = (pipe.tokenizer, pipe.text_encoder)

    def batch(self, seed: int, step: int, size: int) -> tuple[Tensor, list[Tensor]]:
        """Return latents and text states of a step: the same for every variant of equal seed."""
        draws = seeded(seed, "batch", step)
        rows = torch.randint(len(self.texts), (size,), generator=draws).tolist()
        dropped = (torch.rand(size, generator=draws) < self.label_drop).tolist()
        texts = [self.texts[row] for row in rows]
        kept = [text[:0] if drop else text for text, drop in zip(texts, dropped, strict=True)]
        return self.latents[rows], kept

    def asked(self, first: int, count: int) -> list[Tensor]:
        """Return the text states of samples."""
        captions = [self.asks[index].caption for index in range(first, first + count)]
        return encode_texts(captions, *self.encoders, length=network(1).text_length)

    def frames(self, made: Float[Tensor, "b c t h w"]) -> Tensor:
        """Return generated latents as clips, uint8 [b, t, h, w, 3]."""
        pixels = self.tokenizer.decode(made).nan_to_num(0).permute(0, 2, 3, 4, 1)
        return pixels.mul(127.5).add(127.5).clamp(0, 255).round().byte()

    def judged(self, made: Float[Tensor, "b c t h w"], judge: DigitJudge) -> dict[str, float]:
        """Return the shares of right digits and directions, and the distance from real frames."""
        clips, asks = self.frames(made), [self.asks[index] for index in range(len(made))]
        wanted = torch.tensor([ask.digit for ask in asks])
        ways = [direction_of(clip) == ask.direction for clip, ask in zip(clips, asks, strict=True)]
        others = torch.stack([ask.frames for ask in asks])
        near = frechet_frames(judge, others[:, ::4].flatten(0, 1), clips[:, ::4].flatten(0, 1))
        digit = (judge.majority(clips) == wanted).float().mean()
        return {"digit": float(digit), "direction": sum(ways) / len(ways), "frechet": near}

    def sheet(self, made: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b2 3 t2 h2 w2"]:
        """Return a few clips in [0, 1]."""
        return self.frames(made[:8])[:, ::4].permute(0, 4, 1, 2, 3).float() / 255
