"""All clips of a cache as tensors: what a step needs of them, taken together, on any device."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contar._errors import bad
from contar._files import read_json, read_weights, write_weights, write_whole
from contar._typing import Bool, Float, Int, Tensor
from contar.data import Cache
from contar.training.caching import check_samples

_FILE, _FACTS = "latents.safetensors", "latents.json"


@dataclass(frozen=True)
class Latents:
    """Encoded clips of one shape.

    Attributes:
        moments: [n, 2c, t, h, w], mean and deviation of the scaled latents, float16.
        texts: [u, l, e], states of the captions, float16, 0 behind the end of each.
        lengths: [u], tokens of each.
        text_of: [n], which of them is a clip's.
        motion_flow: [n], motion score; NaN where there is none.
        fps: [n].
        begins: [n], whether a clip's first frame is one that its caption asks for.
        made_with: what made them.
        fingerprint: a short name that others would not have.
    """

    moments: Float[Tensor, "n c t h w"]
    texts: Float[Tensor, "u l e"]
    lengths: Int[Tensor, " u"]
    text_of: Int[Tensor, " n"]
    motion_flow: Float[Tensor, " n"]
    fps: Float[Tensor, " n"]
    begins: Bool[Tensor, " n"]
    made_with: Mapping[str, Any]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.moments)

    @classmethod
    def of(cls, cache: Cache, rows: Sequence[int] | None = None) -> "Latents":
        """Read a cache of `contar.training.encode_clips`, of clips of one shape; or `rows` of it.

        Raises:
            ValueError: a sample of another kind; it is named.
        """
        samples = check_samples(cache, rows=rows)
        kind = np.result_type(*(sample.arrays["text"].dtype for sample in samples))
        texts = [torch.from_numpy(sample.arrays["text"].astype(kind)) for sample in samples]
        scores = [sample.facts["motion_flow"] for sample in samples]
        return cls(
            moments=torch.from_numpy(np.stack([sample.arrays["latents"] for sample in samples])),
            texts=torch.nn.utils.rnn.pad_sequence(texts, batch_first=True),
            lengths=torch.tensor([len(text) for text in texts], device="cpu"),
            text_of=torch.arange(len(texts), device="cpu"),
            motion_flow=torch.from_numpy(np.array(scores, np.float32)),  # of None makes NaN
            fps=torch.from_numpy(np.array([s.facts["fps"] for s in samples], np.float32)),
            begins=torch.ones(len(samples), dtype=torch.bool, device="cpu"),
            made_with=cache.made_with,
            fingerprint=cache.fingerprint,
        )

    def to(self, device: torch.device | str) -> "Latents":
        """Return them on a device."""
        return replace(self, **{name: x.to(device) for name, x in self._tensors().items()})

    def take(self, rows: Sequence[int] | Tensor) -> "Latents":
        """Return some of the clips."""
        chosen = torch.as_tensor(rows, device=self.moments.device)
        names = ("moments", "text_of", "motion_flow", "fps", "begins")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def save(self, folder: Path) -> None:
        """Write them to a folder that exists: two whole files, `latents.json` last."""
        part = folder / f".{_FILE}.part"
        write_weights({name: value.contiguous() for name, value in self._tensors().items()}, part)
        (folder / _FACTS).unlink(missing_ok=True)  # of others that were there
        part.replace(folder / _FILE)
        facts = {"made_with": dict(self.made_with), "fingerprint": self.fingerprint}
        write_whole(folder / _FACTS, json.dumps(facts, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path, *, made_with: Mapping[str, Any]) -> "Latents":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: it is not there.
            ValueError: it was made with something else, or is damaged.
        """
        facts = read_json(folder / _FACTS)
        if facts.get("made_with") != json.loads(json.dumps(dict(made_with))):
            allowed = f"those made with {dict(made_with)}"
            raise bad("latents", f"{folder}, made with {facts.get('made_with')}", allowed)
        tensors = read_weights(folder, _FILE)
        held = {field.name for field in fields(cls)}
        if {*tensors, *facts} != held:
            raise bad("latents", f"{folder} with {sorted({*tensors, *facts})}", f"{sorted(held)}")
        return cls(**tensors, **facts)

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
