"""A judge of digits: a small network that says which digit a frame shows, or that it shows none."""

import hashlib
import os
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from contar._defaults import fixed_defaults
from contar._errors import bad, check_tensor
from contar._files import load_exactly, read_weights, write_whole
from contar._typing import Float, Int, Tensor, UInt8
from contar.media import check_pixels
from recipes.moving_digits.judges.mass import brightness, centres, windows

FEATURES = 32
NONE = -1  # the label of what shows no digit
BROKEN = 10  # its class
SURE = 0.4  # least probability with which it names a digit
_CHUNK = 512  # frames at once: 50 MB


class DigitJudge(nn.Module):
    """Says which digit a frame shows, if any, after the 28x28 pixels around its bright mass.

    Strokes that are broken, merged or melted show none: they are a class of their own.

    `train_judge` makes one. It has 42,000 parameters and takes 0.3 ms a frame on a CPU core.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, out, kernel in ((1, 16, 5), (16, 32, 3), (32, 64, 3)):
            layers += [
                nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False),
                nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2),
            ]  # fmt: skip
        self.body = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(64 * 3 * 3, FEATURES, bias=False),
            nn.BatchNorm1d(FEATURES, affine=False),  # features of mean 0 and variance 1
        )
        self.head = nn.Linear(FEATURES, BROKEN + 1)

    def forward(self, windows: Float[Tensor, "n 28 28"]) -> Float[Tensor, "n 11"]:
        """Return the logits of the digits 0 to 9 and of what is none."""
        return self.head(functional.relu(self.body(windows[:, None])))

    def features(self, frames: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n 32"]:
        """Return what the network sees in frames, of about mean 0 and variance 1 on real digits.

        Raises:
            ValueError: no uint8 [n, h, w, 3], or the judge is in training mode.
        """
        return self._look(frames)[0]

    def digits(self, frames: UInt8[Tensor, "n h w 3"]) -> Int[Tensor, " n"]:
        """Return the digit of each frame, -1 where it shows none; errors as `features`."""
        features, seen = self._look(frames)
        sure, labels = self.head(functional.relu(features)).softmax(1).max(1)
        return labels.where(seen & (labels < BROKEN) & (sure > SURE), NONE)

    def change(
        self, frames: UInt8[Tensor, "n h w 3"], others: UInt8[Tensor, "n h w 3"]
    ) -> Float[Tensor, " n"]:
        """Return how far the writing in other frames is from that in frames, by their features.

        NaN where either shows nothing; errors as `features`.
        """
        (features, seen), (others, also) = self._look(frames), self._look(others)
        return (features - others).norm(dim=1).where(seen & also, torch.nan).cpu()

    def majority(self, clips: UInt8[Tensor, "b t h w 3"]) -> Int[Tensor, " b"]:
        """Return the digit that more than half of a clip's frames show, -1 where there is none.

        Raises:
            ValueError: no uint8 [b, t, h, w, 3], or the judge is in training mode.
        """
        check_pixels("clips", clips, "[b, t, h, w, 3]")
        return majority(self.digits(clips.flatten(0, 1)).view(clips.shape[:2]))

    @torch.no_grad()
    def _look(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of frames and whether each shows something."""
        check_pixels("frames", frames, "[n, h, w, 3]")
        if self.training:
            raise bad("judge", "one in training mode", "judge.eval()")
        device = self.head.weight.device
        features, seen = [torch.zeros(0, FEATURES, dtype=self.head.weight.dtype, device=device)], []
        for chunk in frames.split(_CHUNK):
            grey = brightness(chunk.to(device))
            centre = centres(grey)
            seen.append(~centre[:, 0].isnan())
            features.append(self.body(windows(grey, centre)[:, None]))
        return torch.cat(features), torch.cat(seen)

    def fingerprint(self) -> str:
        """Return 12 hexadecimal digits that tell these weights from others."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode() + value.cpu().numpy().tobytes())
        return digest.hexdigest()[:12]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the weights to a safetensors file of 200 KB, whole or not at all; return its path.

        Raises:
            FileNotFoundError: the folder does not exist.
        """
        from safetensors.torch import save

        file = Path(path)
        if not file.parent.is_dir():
            raise FileNotFoundError(f"path: no folder {str(file.parent)!r}")
        write_whole(file, save({k: v.contiguous() for k, v in self.state_dict().items()}))
        return file

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "DigitJudge":
        """Return the judge that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged or holds other weights.
        """
        file = Path(path)
        with fixed_defaults(), torch.random.fork_rng(devices=[]):
            judge = cls()
        load_exactly(judge, read_weights(file.parent, file.name), file.name)
        return judge.eval().requires_grad_(False)


def load_judge() -> DigitJudge:
    """Return the carried judge, by which all figures of moving digits are made."""
    return DigitJudge.load(Path(__file__).parents[1] / "weights" / "judge.safetensors")


def majority(labels: Int[Tensor, "b t"]) -> Int[Tensor, " b"]:
    """Return the label that more than half of a clip's frames have, -1 where none has.

    Raises:
        ValueError: other labels.
    """
    check_tensor("labels", labels, (None, None), "[b, t]", kind="int")
    if not labels.numel():
        return labels.new_full((len(labels),), NONE)
    most = labels.mode(dim=1).values
    votes = (labels == most[:, None]).sum(1)
    return most.where(2 * votes > labels.shape[1], NONE)
