"""Numbers as tokens: an embedding of a scalar, motion score and frame rate, times of frames."""

from typing import Literal

import torch
from torch import nn

from contar._errors import bad, check_choice, check_instance, check_size, check_tensor
from contar._layers import in_single, weight_of
from contar._typing import Float, Tensor
from contar.attention._angles import waves

_WAVES = 256  # width of the sinusoid


class ScalarEmbedding(nn.Module):
    """A sinusoid of a number through two linear layers with SiLU between.

    Source: the timestep embedding of diffusion models (Dhariwal & Nichol 2021, arXiv 2105.05233).

    Args:
        norm: of the result, times a learned weight: "rms" divides by the root of its mean square
            (Phonon), "deviation" by its standard deviation, uncentred (Pocket TTS); None is none.

    Raises:
        ValueError: a width below 1, or an unknown norm.
    """

    def __init__(
        self,
        width: int,
        *,
        cosine_first: bool = False,
        bias: bool = True,
        norm: Literal["rms", "deviation"] | None = None,
    ) -> None:
        super().__init__()
        check_size("width", width, 2 if norm == "deviation" else 1)
        check_instance("cosine_first", cosine_first, bool)
        check_instance("bias", bias, bool)
        check_choice("norm", norm, (None, "rms", "deviation"))
        self.cosine_first, self.norm = cosine_first, norm
        self.fc1 = nn.Linear(_WAVES, width, bias)
        self.act = nn.SiLU()
        self.fc2 = nn.Linear(width, width, bias)
        self.weight = None if norm is None else nn.Parameter(torch.ones(width))

    def forward(self, values: Float[Tensor, "*m"]) -> Float[Tensor, "*m d"]:
        """Embed float32 numbers [...] as [..., width]."""
        x = waves(values, _WAVES, self.cosine_first).to(weight_of(self.fc1).dtype)
        x = self.fc2(self.act(self.fc1(x)))
        if self.weight is None:
            return x
        wide = in_single(x)
        rms = self.norm == "rms"
        square = wide.square().mean(-1, keepdim=True) if rms else wide.var(-1, keepdim=True)
        return (wide * (square + 1e-5).rsqrt()).to(x.dtype) * self.weight


class MotionTokens(nn.Module):
    """Two tokens: how much moves (optical flow score) and how fast frames follow (fps).

    Source: NOVA (arXiv 2412.14169, section 3.2).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.flow = ScalarEmbedding(width)
        self.fps = ScalarEmbedding(width)

    def forward(
        self, flow: Float[Tensor, " b"], fps: Float[Tensor, " b"]
    ) -> Float[Tensor, "b 2 d"]:
        """Return the tokens [b, 2, width] of flow scores and frames per second, both [b].

        Raises:
            ValueError: shapes that are not [b].
        """
        check_tensor("flow", flow, (None,), "[b]")
        check_tensor("fps", fps, (len(flow),), "[b]")
        return torch.stack([self.flow(flow), self.fps(fps)], dim=1)


class FrameTimes(nn.Module):
    """A learned embedding of each frame's time, for a clip of any number of frames.

    Times follow one of the laws of `frame_times`, where "stretch" is what the released checkpoints
    expect (the 480p NOVA is made for 16 latent frames and run on 9).

    Args:
        base: latent frames that the model is made for.

    Raises:
        ValueError: a number below 1.
    """

    def __init__(self, width: int, *, base: int) -> None:
        super().__init__()
        self.base = check_size("base", base)
        self.embed = ScalarEmbedding(width)
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        frames: int,
        *,
        frame: int | None = None,
        law: Literal["stretch", "continue"] = "stretch",
    ) -> Float[Tensor, "t d"]:
        """Return the embeddings [frames, width] of a clip of so many latent frames, or of one.

        Raises:
            ValueError: a number of frames below 1, a frame that is none of them, or another law.
        """
        check_size("frames", frames)
        if frame is not None and check_size("frame", frame, 0) >= frames:
            raise bad("frame", frame, f"below {frames}")
        first, last = (0, frames) if frame is None else (frame, frame + 1)
        device = self.norm.weight.device
        numbers = torch.arange(first, last, dtype=torch.float32, device=device)
        return self.norm(self.embed(_by_law(numbers, frames, self.base, law)))


def frame_times(
    numbers: Float[Tensor, " t"], frames: int, base: int, law: Literal["stretch", "continue"]
) -> Float[Tensor, " t"]:
    """Return the times of a clip's frames, in steps of the clips that a model was made for.

    Args:
        numbers: of the frames, from 0.
        base: frames that the model is made for.
        law: "stretch" has the clip take the time of `base` frames, frame t of T being at
            t * base / T; "continue" goes on by 1 a frame, past the time of `base`, too. They agree
            where the clip has `base` frames.

    Raises:
        ValueError: other numbers than [t], a number of frames below 1, or another law.
    """
    check_tensor("numbers", numbers, (None,), "[t]")
    check_size("frames", frames)
    check_size("base", base)
    return _by_law(numbers, frames, base, law)


def _by_law(numbers: Tensor, frames: int, base: int, law: str) -> Tensor:
    if law == "stretch":
        return numbers / (frames / base)
    check_choice("law", law, ("stretch", "continue"))
    return numbers
