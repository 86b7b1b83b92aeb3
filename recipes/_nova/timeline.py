"""Prompts that change from frame to frame: which holds from where on."""

from collections.abc import Sequence
from typing import Any

from contar._errors import bad, check_count, check_size
from contar.generation import GenerationPlan
from contar.tokenizers import Tokenizer


def read_timeline(plan: GenerationPlan, prompts: Any) -> list[tuple[int, Any]]:
    """Return states of prompts with the frames from which they hold; alone, they hold from 0.

    Raises:
        ValueError: frames that do not begin with 0 and rise, one that there is not, other than
            pairs, or a plan under which prompts cannot change.
    """
    if not _timed(prompts):
        return [(0, prompts)]
    for pair in prompts:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise bad("prompt_embeds", type(pair).__name__, "(frame, states) in each place")
    starts = [check_size("prompt_embeds frame", pair[0], 0) for pair in prompts]
    _check_starts("prompt_embeds", starts, plan.frames, plan)
    return [(start, pair[1]) for start, pair in zip(starts, prompts, strict=True)]


def read_prompts(
    prompts: Any, tokenizer: Tokenizer, frames: int, plan: GenerationPlan
) -> list[tuple[int, Any]]:
    """Return prompts with the latent frames from which they hold; one that came alone from 0.

    Args:
        prompts: a text or several, or pairs of a frame of the video and these.
        tokenizer: that makes the frames.
        frames: how many there will be.
        plan: of the generation.

    Raises:
        ValueError: as `read_timeline`, or two prompts in one latent frame.
    """
    if not _timed(prompts):
        return [(0, prompts)]
    for pair in prompts:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise bad("prompt", pair, "(frame, text) in each place")
    starts = [check_count("prompt frame", pair[0], 0) for pair in prompts]
    _check_starts("prompt", starts, frames, plan)
    stride = tokenizer.time_stride
    lone = plan.frames * stride - frames  # by which the first latent frame has fewer
    latent = [(start + lone) // stride for start in starts]
    if len(set(latent)) < len(latent):
        raise bad("prompt frames", starts, "one prompt at most in each latent frame")
    return [(t, pair[1]) for t, pair in zip(latent, prompts, strict=True)]


def _timed(prompts: Any) -> bool:
    return isinstance(prompts, Sequence) and any(isinstance(each, tuple) for each in prompts)


def _check_starts(name: str, starts: Sequence[int], frames: int, plan: GenerationPlan) -> None:
    if starts[0] or list(starts) != sorted(set(starts)) or starts[-1] >= frames:
        allowed = f"frame 0 first, then later and later ones, below the {frames} there are"
        raise bad(f"{name} frames", list(starts), allowed)
    if len(starts) > 1 and plan.window is not None and not plan.pinned:
        allowed = "at least 1 beside a window, for prompts that change"
        raise bad("plan.pinned", plan.pinned, allowed)
