"""How far moving digits drift in videos longer than a model learned, by way of making them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import contar
from contar._errors import bad, check_count
from contar._typing import Float, Tensor, UInt8
from contar.evaluation import DriftReport, drift, require_torchmetrics
from contar.tokenizers import VAETokenizer
from recipes import nova
from recipes.moving_digits.data.bouncing import BouncingDigits
from recipes.moving_digits.data.captions import DIRECTIONS
from recipes.moving_digits.data.moving import MovingDigit
from recipes.moving_digits.evaluation.pipeline import abilities_of
from recipes.moving_digits.judges.features import FrameFeatures
from recipes.moving_digits.judges.judge import DigitJudge, load_judge
from recipes.moving_digits.judges.tracking import direction_of
from recipes.moving_digits.model import OVERLAP

BATCH = 20


def ways_of(model: nova.Nova) -> dict[str, dict[str, Any]]:
    """Return the ways in which a model can make a long video, as changes of a plan.

    Time laws with all frames in sight; the law that goes on with a window, which together with the
    first frame has as many frames as the model learned, counted anew where positions are rotary;
    and restarts in chunks.
    """
    learned = model.sizes.frames
    window = {"window": max(1, learned - 1), "pinned": 1}
    ways: dict[str, dict[str, Any]] = {
        "stretch": {"times": "stretch"},
        "continue": {"times": "continue"},
        "window": {"times": "continue", **window},
    }
    if model.sizes.positions == "rotary":
        ways["window, timed anew"] = {"times": "window", **window}
    if learned > OVERLAP:
        ways["chunks"] = {"chunk": learned, "overlap": OVERLAP}
    return ways


def check_lengths(lengths: Sequence[int]) -> list[int]:
    """Return lengths as ints; ValueError unless there is one, and each is longer than the last."""
    counts = [check_count("lengths", length) for length in lengths]
    if not counts or counts != sorted(set(counts)):
        raise bad("lengths", counts, "at least one, each longer than the one before")
    return counts


def measure_drift(
    pipe: nova.NovaPipeline,
    out: Path,
    *,
    lengths: Sequence[int] = (1, 2, 3, 6),
    count: int = 100,
    seed: int = 1000,
    ways: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: Any,
) -> DriftReport:
    """Judge videos of several lengths segment by segment; write a table and a picture.

    Of each segment: the share of frames in which the judge sees the digit that was asked for; the
    share of clips whose digit moves in the asked direction or one that walls make of it (or stands
    still where that is asked); and the Fréchet distance of its frames from those of the same
    segment of other real clips, in the judge's features. "real clips" are the yardstick.

    Args:
        pipe: of moving digits.
        out: folder for `drift.json`, `drift.md` and `drift.png`.
        lengths: in clips of the learned length, rising.
        count: test clips asked for, 2 or more.
        seed: of the clips.
        ways: plan changes by name; None is `ways_of` the model.
        settings: of every call of the pipeline.

    Raises:
        ValueError: a number outside its range, lengths that do not rise, or a plan that does not
            fit the model, before anything is made.
        ImportError: an extra is missing; "contar[demo,eval]" has all.
    """
    lengths = check_lengths(lengths)
    check_count("count", count, 2)
    require_torchmetrics()
    model, judge = pipe.transformer, load_judge()
    learned = VAETokenizer(pipe.vae).pixel_frames(model.sizes.frames)
    most = lengths[-1] * (learned - 1) + 1
    chosen = ways_of(model) if ways is None else ways
    for changes in chosen.values():  # a stream checks what it is given before it works
        pipe.stream("", num_frames=most, plan_changes=changes, **settings)
    asked = BouncingDigits("test", count, seed=seed, frames=most)
    others = BouncingDigits("test", count, seed=seed + 1, frames=most)
    samples = [asked[i] for i in range(count)]
    truth = torch.stack([sample.frames for sample in samples])
    reference = torch.stack([others[i].frames for i in range(count)])
    scores = scores_of(samples, judge)
    rows: dict[str, dict[int, Any]] = {name: {} for name in ("real clips", *chosen)}
    captions, firsts = [sample.caption for sample in samples], range(0, count, BATCH)
    for length in lengths:
        frames = length * (learned - 1) + 1
        options: Any = {"features": FrameFeatures(judge), "real": reference[:, :frames]}
        for name, changes in chosen.items():
            make: Any = abilities_of(
                pipe, num_frames=frames, plan_changes=changes, **settings
            ).text_to_video
            made = [make(captions[i : i + BATCH], seed + i, None) for i in firsts]
            rows[name][length] = drift(torch.cat(made), learned, scores, **options)
        rows["real clips"][length] = drift(truth[:, :frames], learned, scores, **options)
    notes = {
        "lengths": lengths, "count": count, "seed": seed, "learned": learned,
        "ways": {name: dict(changes) for name, changes in chosen.items()},
        "judge": judge.fingerprint(), "contar": contar.__version__, "torch": torch.__version__,
    }  # fmt: skip
    report = DriftReport(rows, notes)
    report.save(out)
    return report


def scores_of(
    samples: Sequence[MovingDigit], judge: DigitJudge
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return scores of a segment's frames against what was asked."""
    wanted = torch.tensor([sample.digit for sample in samples])
    allowed = [_between_walls(sample.direction) for sample in samples]

    def digit(frames: UInt8[Tensor, "b n h w 3"]) -> Float[Tensor, "b n"]:
        seen = judge.digits(frames.flatten(0, 1)).view(frames.shape[:2]).cpu()
        return (seen == wanted[:, None]).float()

    def direction(frames: UInt8[Tensor, "b n h w 3"]) -> Float[Tensor, " b"]:
        pairs = zip(frames, allowed, strict=True)
        return torch.tensor([direction_of(clip) in ways for clip, ways in pairs]).float()

    return {"digit": digit, "direction": direction}


def _between_walls(direction: str | None) -> tuple[str | None, ...]:
    if direction is None:
        return (None,)
    turn = DIRECTIONS.index(direction)  # in eighths
    return tuple(DIRECTIONS[way % 8] for way in (turn, turn + 4, -turn, 4 - turn))
