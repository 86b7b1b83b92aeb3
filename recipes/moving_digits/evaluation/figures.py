"""Figures of a model of moving digits, counted from what was seen in its clips."""

import os
from collections.abc import Callable, Sequence
from statistics import median

from contar.evaluation import Figure, Report, mean, rank_correlation, share
from recipes.moving_digits.evaluation.outcomes import Outcome

LAST = 4  # frames
# What is counted in the clips of a task: how it is called, and its kind, which says its scale.
_COUNTED = {
    "digit": ("digit, most frames", "share"),
    "digit_last": ("digit, each of the last four frames", "share"),
    "digit_all": ("digit, every frame", "share"),
    "digit_read": ("digit, reader", "share"),
    "change": ("change of the writing", "distance"),
    "sharpness": ("sharpness, last over first", "ratio"),
    "direction": ("direction", "share"),
    "still": ("stands still", "share"),
    "speed": ("speed within 25%", "share"),
    "speed_ratio": ("speed ratio, median", "ratio"),
    "bounced": ("thrown back at a wall", "share"),
    "frechet_frames": ("Fréchet distance, frames", "distance"),
    "frechet_clips": ("Fréchet distance, clips", "distance"),
}
_TITLES = {
    "text": "text to video", "image": "image to video", "continuation": "continuation",
    "longer": "three times as long",
}  # fmt: skip
_ALWAYS = ("digit", "digit_last", "digit_all", "change", "sharpness")
_OF = {
    "text": (*_ALWAYS, "digit_read", "direction", "still", "frechet_frames", "frechet_clips"),
    "image": (*_ALWAYS, "digit_read", "direction", "still"),
    "continuation": (*_ALWAYS, "digit_read", "direction", "still", "speed", "speed_ratio"),
    "longer": (*_ALWAYS, "bounced"),
}
FIGURES = {
    f"{task}.{name}": (f"{_TITLES[task]}: {_COUNTED[name][0]}", _COUNTED[name][1])
    for task, names in _OF.items()
    for name in _COUNTED
    if name in names
} | {
    "motion.rank": ("motion score: asked and measured", "correlation"),
    "motion.rank_moving": ("motion score: of what shall move", "correlation"),
    "tokenizer.psnr": ("tokenizer: PSNR", "dB"),
    "tokenizer.ssim": ("tokenizer: SSIM", "similarity"),
}
"""What a report holds, by task and figure: its title, and what it counts."""


def count_up(outcomes: Sequence[Outcome]) -> dict[str, Figure]:
    """Return the figures of the clips of one task, by the names in `FIGURES`.

    The digit is right where the judge sees the one asked for: in most frames, in each of the last
    four, in every one. The direction, of those that shall move, is right where it is the nearest of
    eight; a prompt to stand still is met by what moves less than 0.2 pixels a frame and can be
    seen. How far the writing changes and how sharp it stays are means.
    """

    def of(test: Callable[[Outcome], bool], clips: Sequence[Outcome] = outcomes) -> Figure:
        return share(sum(map(test, clips)), len(clips))

    if not outcomes:
        return {}
    task = outcomes[0].task
    moving = [o for o in outcomes if o.direction is not None]
    still = [o for o in outcomes if o.direction is None]
    if task == "motion":
        return {"motion.rank": _rank(outcomes), "motion.rank_moving": _rank(moving)}
    figures = {
        f"{task}.digit": of(lambda o: o.seen == o.digit),
        f"{task}.digit_last": of(lambda o: _shown(o, o.frames[-LAST:])),
        f"{task}.digit_all": of(lambda o: _shown(o, o.frames)),
        f"{task}.change": mean([o.change for o in outcomes if o.change is not None]),
        f"{task}.sharpness": mean([o.sharpness for o in outcomes if o.sharpness is not None]),
    }
    if task == "longer":
        met = [o for o in outcomes if o.bounced is not None]
        return figures | {f"{task}.bounced": of(lambda o: bool(o.bounced), met)}
    if outcomes[0].read is not None:
        figures[f"{task}.digit_read"] = of(lambda o: o.read == o.digit)
    figures[f"{task}.direction"] = of(lambda o: o.moved == o.direction, moving)
    figures[f"{task}.still"] = of(lambda o: o.moved is None, still)
    if task == "continuation":
        ratios = [o.pace / o.speed for o in moving if o.pace is not None]
        near = sum(0.75 <= ratio <= 1.25 for ratio in ratios)
        figures[f"{task}.speed"] = share(near, len(moving))
        figures[f"{task}.speed_ratio"] = Figure(median(ratios) if ratios else None, len(ratios))
    return figures


def _shown(outcome: Outcome, frames: Sequence[int]) -> bool:
    return bool(frames) and all(seen == outcome.digit for seen in frames)


def _rank(clips: Sequence[Outcome]) -> Figure:
    return rank_correlation([o.asked_score or 0.0 for o in clips], [o.score or 0.0 for o in clips])


def load_report(path: str | os.PathLike[str]) -> Report:
    """Return the report on models of moving digits whose `scores.json` lies at a path.

    Raises:
        FileNotFoundError, ValueError: as `contar.evaluation.Report.load`.
    """
    return Report.load(path, FIGURES, Outcome)
