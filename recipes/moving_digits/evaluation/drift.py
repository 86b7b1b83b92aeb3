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
from recipes.moving_digits.data import DIRECTIONS, BouncingDigits, MovingDigit
from recipes.moving_digits.evaluation.pipeline import abilities_of
from recipes.moving_digits.judges import DigitJudge, direction_of, load_judge
from recipes.moving_digits.judges.features import FrameFeatures
from recipes.moving_digits.model import OVERLAP

LENGTHS = (1, 2, 3, 6)
BATCH = 20
Ways = Mapping[str, Mapping[str, Any]]


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
    lengths: Sequence[int] = LENGTHS,
    count: int = 100,
    seed: int = 1000,
    ways: Ways | None = None,
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
    learned = learned_frames(pipe)
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
    for length in lengths:
        frames = length * (learned - 1) + 1
        options: Any = {"features": FrameFeatures(judge), "real": reference[:, :frames]}
        for name, changes in chosen.items():
            made = _made(pipe, samples, seed, num_frames=frames, plan_changes=changes, **settings)
            rows[name][length] = drift(made, learned, scores, **options)
        rows["real clips"][length] = drift(truth[:, :frames], learned, scores, **options)
    notes = {
        "lengths": lengths, "count": count, "seed": seed, "learned": learned,
        "ways": {name: dict(changes) for name, changes in chosen.items()},
        "judge": judge.fingerprint(), "contar": contar.__version__, "torch": torch.__version__,
    }  # fmt: skip
    report = DriftReport(rows, notes)
    report.save(out)
    return report


def _made(
    pipe: nova.NovaPipeline, samples: Sequence[MovingDigit], seed: int, **settings: Any
) -> UInt8[Tensor, "b t h w 3"]:
    """Return the clips that a pipeline makes of the captions of samples."""
    make: Any = abilities_of(pipe, **settings).text_to_video
    captions = [sample.caption for sample in samples]
    firsts = range(0, len(samples), BATCH)
    return torch.cat([make(captions[i : i + BATCH], seed + i, None) for i in firsts])


def learned_frames(pipe: nova.NovaPipeline) -> int:
    """Return how many frames a clip has of the length that a pipeline's network learned."""
    return VAETokenizer(pipe.vae).pixel_frames(pipe.transformer.sizes.frames)


def scores_of(
    samples: Sequence[MovingDigit], judge: DigitJudge
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return scores of a segment's frames against what was asked."""
    wanted = torch.tensor([sample.digit for sample in samples])

    def digit(frames: UInt8[Tensor, "b n h w 3"]) -> Float[Tensor, "b n"]:
        seen = judge.digits(frames.flatten(0, 1)).view(frames.shape[:2]).cpu()
        return (seen == wanted[:, None]).float()

    def direction(frames: UInt8[Tensor, "b n h w 3"]) -> Float[Tensor, " b"]:
        hits = [
            direction_of(clip) in _between_walls(sample.direction)
            for clip, sample in zip(frames, samples, strict=True)
        ]
        return torch.tensor(hits).float()

    return {"digit": digit, "direction": direction}


def _between_walls(direction: str | None) -> tuple[str | None, ...]:
    if direction is None:
        return (None,)
    turn = DIRECTIONS.index(direction)  # in eighths
    return tuple(DIRECTIONS[way % 8] for way in (turn, turn + 4, -turn, 4 - turn))
