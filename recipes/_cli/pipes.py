"""What commands with a pipeline share: their options, the pipeline, what they say they made."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro

if TYPE_CHECKING:
    import torch

    from contar._typing import Tensor
    from recipes.nova import NovaPipeline

T = TypeVar("T")
Options = Annotated[T, tyro.conf.arg(name="")]
"""Fields of a dataclass that are a command's own options."""


@dataclass(frozen=True)
class Loading:
    """Which pipeline is loaded, and how.

    Args:
        model: "moving-digits", which contar carries; folder of a pipeline, ours or in the released
            layout; or its id on the hub.
        device: the GPU if there is one; of `sample` several by turns.
        dtype: of the weights; bfloat16 on a GPU, else float32.
        heads: attention heads (temporal, spatial) of a network in the released layout whose
            architecture is not a released one.
        tiling: encode and decode large frames in tiles, for memory.
    """

    model: str = "moving-digits"
    device: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    heads: tuple[int, int] | None = None
    tiling: bool = False

    def load(self) -> "NovaPipeline":
        """Return the pipeline, on its device.

        Raises:
            FileNotFoundError, ValueError, ImportError: as `nova.from_pretrained`.
            ValueError: a device that is not here, or tiles of a tokenizer that knows none.
        """
        import torch

        from contar._errors import bad, check_device
        from recipes import nova

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        check_device("device", device)
        if torch.device(device).type == "meta":
            raise bad("device", device, "one that computes")
        kind = self.dtype or ("bfloat16" if device.startswith("cuda") else "float32")
        pipe = nova.from_pretrained(self.model, dtype=getattr(torch, kind), num_heads=self.heads)
        pipe.to(device)
        if self.tiling:
            if not hasattr(pipe.vae, "use_tiling"):
                raise bad("tiling", True, f"False: {type(pipe.vae).__name__} knows no tiles")
            pipe.vae.enable_tiling()
        return pipe

    def anywhere(self) -> "Loading":
        """Return the same for a process that begins in another folder."""
        folder = Path(self.model)
        return replace(self, model=str(folder.absolute())) if folder.exists() else self


@lru_cache(maxsize=1)
def load_once(loading: Loading) -> "NovaPipeline":
    """Return a pipeline without a bar, once a process, whose tasks follow one another."""
    pipe = loading.load()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@dataclass(frozen=True)
class Drawing:
    """How samples are drawn; what is None is the model's own default.

    Args:
        steps: sets in which each frame's tokens are generated.
        diffusion_steps: of each set.
        guidance: scale of classifier-free guidance.
        negative: what guidance leads away from.
        motion_flow: optical flow score, how much moves.
        fps: frames per second, of the motion and of the file.
    """

    steps: int | None = None
    diffusion_steps: int | None = None
    guidance: float | None = None
    negative: str | None = None
    motion_flow: float | None = None
    fps: float | None = None

    def check(self) -> None:
        """Raise a ValueError for what is wrong whatever the model is."""
        from contar._errors import check_count, check_number, check_text

        checks = {"steps": check_count, "diffusion_steps": check_count, "negative": check_text}
        checks |= {"guidance": partial(check_number, low=0), "motion_flow": check_number}
        for name, check in checks.items():
            if (value := getattr(self, name)) is not None:
                check(name, value)

    def call(self) -> dict[str, Any]:
        """Return arguments of a call of the pipeline."""
        return {
            "num_inference_steps": self.steps,
            "num_diffusion_steps": self.diffusion_steps,
            "guidance_scale": self.guidance,
            "negative_prompt": self.negative,
            "motion_flow": self.motion_flow,
            "fps": self.fps,
        }


@dataclass(frozen=True)
class Asked(Loading, Drawing):
    """What is asked of a pipeline.

    Args:
        fast: in a quarter of the sets, but four if there are so many, and few steps of each.
        seed: of all that is random.
        as_json: print a line of JSON for each file that was made, and nothing else.
    """

    fast: bool = False
    seed: int = 0
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False

    def check(self) -> None:
        """Raise a ValueError for what is wrong whatever the model is."""
        from contar._errors import bad

        super().check()
        if self.fast and (self.steps, self.diffusion_steps) != (None, None):
            raise bad("fast", True, "False beside --steps and --diffusion-steps")

    def warn(self, prompts: Sequence[str], *, shown: bool, moving: bool = True) -> None:
        """Say, a line on stderr each, what prompts leave open to the model that contar carries.

        Args:
            prompts: of this call.
            shown: the digit is known without words.
            moving: a video is asked for.
        """
        if self.model != "moving-digits":
            return
        from recipes.moving_digits import left_open

        for prompt in dict.fromkeys(prompts):
            lack = left_open(prompt, shown=shown, moving=moving)
            if lack is not None:
                print(f"contar: {lack}: moving-digits makes what it likes", file=sys.stderr)

    def warn_of_light(self, name: str, frames: "Tensor | None") -> None:
        """Say on stderr if the model that contar carries is shown another kind of picture.

        Args:
            name: of the argument.
            frames: uint8 [t, h, w, 3], given; None is none.
        """
        if self.model == "moving-digits" and frames is not None and frames.float().mean() > 127:
            known = "moving-digits knows light writing on black"
            print(f"contar: {name}: most of it is light, and {known}", file=sys.stderr)

    def options(self, pipe: "NovaPipeline", changes: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments of a call of the pipeline; `changes` are of its plan."""
        if self.fast:
            from contar._errors import bad
            from contar.generation import fast_changes
            from contar.heads import DiffusionHead

            if not isinstance(pipe.transformer.head, DiffusionHead):
                raise bad("fast", True, "False: this model's head takes no solver")
            sets = pipe.config["defaults"]["num_inference_steps"]
            changes = {**fast_changes(pipe.scheduler, sets), **changes}
        return {**self.call(), "plan_changes": dict(changes) or None}


@dataclass(frozen=True)
class Shape:
    """Of a file: frames, their size in pixels, and how many a second."""

    frames: int
    width: int
    height: int
    fps: float

    @classmethod
    def of(cls, pipe: "NovaPipeline", frames: int | None, fps: float | None) -> "Shape":
        """Return the shape of what a pipeline makes; None is its own."""
        from contar.tokenizers import VAETokenizer

        stride, defaults = VAETokenizer(pipe.vae).space_stride, pipe.config["defaults"]
        height, width = (side * stride for side in pipe.transformer.sizes.latent)
        return cls(frames or defaults["num_frames"], width, height, fps or defaults["fps"])

    def say(self, file: Path, begun: float, asked: Asked, **more: object) -> None:
        """Print that a file was made, for a person or as a line of JSON.

        Args:
            file: of this shape.
            begun: when, by `time.monotonic`.
            asked: of the model.
            more: that only JSON says, as prompt and seed.
        """
        if not asked.as_json:
            count = "1 frame" if self.frames == 1 else f"{self.frames} frames"
            print(f"{count} of {self.width} x {self.height}: {file}", flush=True)
            return
        known = {"file": str(file), **more, "model": asked.model, **asdict(self)}
        known["seconds"] = round(time.monotonic() - begun, 3)
        print(json.dumps(known, ensure_ascii=False), flush=True)


_BEGINS = {".gif": b"GIF8", ".png": b"\x89PNG"}


def check_replaced(out: Path) -> None:
    """Raise a ValueError if a file is there that is no video or picture as its suffix says."""
    from contar._errors import bad

    if out.is_file() and out.stat().st_size:
        with out.open("rb") as stream:
            head = stream.read(8)
        suffix = out.suffix.lower()
        known = head[4:] == b"ftyp" if suffix == ".mp4" else head.startswith(_BEGINS[suffix])
        if not known:
            allowed = f"a new file, or an older {suffix}, which is replaced"
            raise bad("out", f"{out}, which is there and no {suffix}", allowed)


def check_apart(out: Path, *read: Path | None) -> None:
    """Raise a ValueError if what is written would take the place of a file that is read."""
    from contar._errors import bad

    for file in read:
        if file is not None and file.exists() and out.exists() and out.samefile(file):
            raise bad("out", str(out), f"another file than {file}, which is read")


def seeded(seed: int) -> "torch.Generator":
    """Return the generator of a command's seed.

    Raises:
        ValueError: it is below 0, or 2**63 and more.
    """
    import torch

    from contar._errors import check_size

    return torch.Generator().manual_seed(check_size("seed", seed, 0, 2**63 - 1))
