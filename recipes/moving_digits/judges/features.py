"""How far generated frames and clips are from real ones, in what a judge of digits sees."""

import torch
from einops import rearrange
from torch import nn

from contar._errors import bad
from contar._typing import Float, Tensor, UInt8
from contar.evaluation import frechet_distance
from contar.media import check_pixels
from recipes.moving_digits.judges.judge import FEATURES, DigitJudge
from recipes.moving_digits.judges.tracking import velocity_of

_WALK = 4.0  # pixels; displacements in this unit spread about as wide as a feature


class FrameFeatures(nn.Module):
    """A judge's features of frames, [n, 3, h, w] to [n, 32], as torchmetrics asks for them."""

    num_features = FEATURES

    def __init__(self, judge: DigitJudge) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, frames: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n 32"]:
        """Return the features."""
        return self.judge.features(rearrange(frames, "n c h w -> n h w c"))


class ClipFeatures(nn.Module):
    """What a clip shows and how it moves, [b, 3, t, h, w] to [b, 35].

    The means over its frames of the judge's 32 features; how much they change from frame to frame
    (root mean square); and how far the bright mass goes, down and right, in units of 4 pixels (0
    where it is lost). So few that some hundred clips give their covariance.
    """

    num_features = FEATURES + 3

    def __init__(self, judge: DigitJudge) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, clips: UInt8[Tensor, "b 3 t h w"]) -> Float[Tensor, "b 35"]:
        """Return the features."""
        clips = rearrange(clips, "b c t h w -> b t h w c")
        features = self.judge.features(clips.flatten(0, 1)).view(*clips.shape[:2], -1)
        change = features.diff(dim=1).square().mean((1, 2)).sqrt()
        velocities = [velocity_of(clip) for clip in clips]
        walks = torch.tensor(velocities, dtype=torch.float32, device="cpu").nan_to_num(0)
        walks = (walks * (clips.shape[1] - 1) / _WALK).to(features)
        return torch.cat([features.mean(1), change[:, None], walks], dim=1)


def frechet_frames(
    judge: DigitJudge, real: UInt8[Tensor, "n h w 3"], other: UInt8[Tensor, "m h2 w2 3"]
) -> float:
    """Return the Fréchet distance of two sets of frames in the judge's features.

    Raises:
        ValueError: no uint8 [n, h, w, 3], or fewer than 2 frames.
        ImportError: torchmetrics is not installed.
    """
    for name, frames in (("real", real), ("other", other)):
        check_pixels(name, frames, "[n, h, w, 3]")
    pair = (rearrange(frames, "n h w c -> n c h w") for frames in (real, other))
    return frechet_distance(FrameFeatures(judge), *pair)


def frechet_clips(
    judge: DigitJudge, real: UInt8[Tensor, "n t h w 3"], other: UInt8[Tensor, "m t2 h2 w2 3"]
) -> float:
    """Return the Fréchet distance of two sets of clips in `ClipFeatures`, as `frechet_frames`.

    Raises:
        ValueError: no uint8 [n, t, h, w, 3], fewer than 2 clips, or clips of one frame.
        ImportError: torchmetrics is not installed.
    """
    for name, clips in (("real", real), ("other", other)):
        if check_pixels(name, clips, "[n, t, h, w, 3]").shape[1] < 2:
            raise bad(name, tuple(clips.shape), "clips of at least 2 frames")
    pair = (rearrange(clips, "n t h w c -> n c t h w") for clips in (real, other))
    return frechet_distance(ClipFeatures(judge), *pair)
