"""A model at work on prompts, watched by the judges."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from tqdm import tqdm

import contar
from contar._errors import bad, check_count, check_instance
from contar._typing import Tensor
from contar.evaluation import Figure, Scores, psnr, require_torchmetrics, ssim
from contar.media import check_pixels, motion_score
from recipes.moving_digits.evaluation.abilities import GIVEN, TASKS, Abilities, Clips
from recipes.moving_digits.evaluation.figures import count_up
from recipes.moving_digits.evaluation.outcomes import Outcome, watch
from recipes.moving_digits.judges.features import frechet_clips, frechet_frames
from recipes.moving_digits.judges.judge import DigitJudge
from recipes.moving_digits.judges.reader import Reader
from recipes.moving_digits.judges.tracking import STILL


def evaluate(
    abilities: Abilities,
    dataset: Clips,
    judge: DigitJudge,
    *,
    reader: Reader | None = None,
    reference: Clips | None = None,
    tasks: Sequence[str] | None = None,
    count: int | None = None,
    batch: int = 20,
    seed: int = 0,
    notes: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Scores:
    """Have a model do tasks and return how it did.

    Only what it generated is judged, not the frames that it was given; of what is longer than the
    data set's clips, as many frames as those have, the last, and whether it goes back at a wall.
    `text` leaves the motion score unset; `motion` asks for the score of the data set's own clip, by
    the same captions, some of which say how fast: their words help the correlation.

    Args:
        abilities: of the model; `real(dataset)` gives the figures to hold against it.
        dataset: asks: caption, digit, direction, speed, and the frames of its clips.
        judge: of digits, and whose features the Fréchet distances are taken in.
        reader: a second judge of digits.
        reference: real clips for the Fréchet distances, as many as are counted, none of them in
            `dataset`; None leaves the distances out.
        tasks: names in `TASKS`; None takes all that the model is able to.
        count: of the clips of `dataset` to ask for; None takes all.
        batch: clips in a call.
        seed: of clip 0; clip i has `seed + i` in each task.
        notes: written into the settings: what JSON can hold, as the model's name and commit.
        progress: show a bar.

    Raises:
        ValueError: a task that the model is not able to, other arguments as described, or a model
            that returns other than uint8 [b, t, h, w, 3].
        ImportError: torchmetrics is not installed, or cv2 for `motion`.
    """
    check_instance("abilities", abilities, Abilities)
    check_instance("judge", judge, DigitJudge)
    count = len(dataset) if count is None else check_count("count", count)
    if count > len(dataset):
        raise bad("count", count, f"at most the {len(dataset)} clips of the data set")
    check_count("batch", batch)
    check_count("seed", seed, 0)
    chosen, told = _possible(abilities, tasks), _json(notes or {})
    if reference is not None and "text" in chosen and min(count, len(reference)) < 2:
        raise bad("reference", f"{len(reference)} clips for {count}", "2 for 2, or more")
    # What is not installed is missed now rather than after the first task's minutes.
    if reference is not None or not {"motion", "tokenizer"}.isdisjoint(chosen):
        require_torchmetrics()
    if "motion" in chosen:
        motion_score(dataset[0].frames)
    batches = [range(i, min(i + batch, count)) for i in range(0, count, batch)]
    work = _Work(abilities, dataset, judge, reader, seed)
    figures: dict[str, Figure] = {}
    outcomes: list[Outcome] = []
    for task in chosen:
        bar = tqdm(batches, task, disable=not progress)
        if task == "tokenizer":
            figures |= work.reconstruct(bar)
            continue
        clips, seen = zip(*(work.call(task, indices) for indices in bar), strict=True)
        seen = [outcome for one in seen for outcome in one]
        figures |= count_up(seen)
        outcomes += seen
        if task == "text" and reference is not None:
            figures |= work.frechet(torch.cat(clips), reference)
    settings = {
        "tasks": chosen, "count": count, "batch": batch, "seed": seed,
        "dataset": _describe(dataset),
        "reference": None if reference is None else _describe(reference),
        "judge": judge.fingerprint(),
        "reader": None if reader is None else {"name": reader.name, "frames": reader.frames},
        "given": GIVEN, "still": STILL,
        "contar": contar.__version__, "torch": torch.__version__,
        "notes": told,
    }  # fmt: skip
    return Scores(figures, settings, tuple(outcomes))


@dataclass(frozen=True)
class _Work:
    """A model under way, and who watches."""

    abilities: Abilities
    dataset: Clips
    judge: DigitJudge
    reader: Reader | None
    seed: int

    def call(self, task: str, indices: range) -> tuple[Tensor, list[Outcome]]:
        """Have clips made, and watch them."""
        samples = [self.dataset[index] for index in indices]
        captions = [sample.caption for sample in samples]
        frames = torch.stack([sample.frames for sample in samples])
        make: Callable = getattr(self.abilities, TASKS[task])
        seed, given, asked = self.seed + indices[0], 0, None
        if task == "image":
            given, clips = 1, make(frames[:, 0].clone(), captions, seed)
        elif task == "continuation":
            given, clips = GIVEN, make(frames[:, :GIVEN].clone(), captions, seed)
        elif task == "longer":
            clips = _checked(TASKS[task], make(captions, seed), len(samples), frames.shape[1] + 1)
            given = clips.shape[1] - frames.shape[1]
        else:
            if task == "motion":
                asked = [motion_score(sample.frames) for sample in samples]
            clips = make(captions, seed, asked)
        clips = _checked(TASKS[task], clips, len(samples), given + 2)
        reader = None if task in ("motion", "longer") else self.reader  # slow
        outcomes = watch(task, indices, samples, clips, given, self.judge, reader)
        if asked:
            outcomes = [
                replace(outcome, asked_score=score, score=motion_score(clip))
                for outcome, score, clip in zip(outcomes, asked, clips, strict=True)
            ]
        return clips, outcomes

    def frechet(self, clips: Tensor, reference: Clips) -> dict[str, Figure]:
        """Return the distances from real clips."""
        others = [reference[index].frames for index in range(min(len(clips), len(reference)))]
        real = torch.stack(others)
        near = frechet_frames(self.judge, real.flatten(0, 1), clips.flatten(0, 1))
        far = frechet_clips(self.judge, real, clips)
        distances = {"text.frechet_frames": near, "text.frechet_clips": far}
        return {name: Figure(distance, len(clips)) for name, distance in distances.items()}

    def reconstruct(self, batches: Iterable[range]) -> dict[str, Figure]:
        """Return how near a tokenizer brings clips back."""
        assert self.abilities.reconstruct is not None
        before, after = [], []
        for indices in batches:
            frames = torch.stack([self.dataset[index].frames for index in indices])
            clips = _checked("reconstruct", self.abilities.reconstruct(frames.clone()), len(frames))
            if clips.shape != frames.shape:
                raise bad("reconstruct", tuple(clips.shape), f"{tuple(frames.shape)}, as given")
            before.append(frames.flatten(0, 1))
            after.append(clips.flatten(0, 1))
        real, other = torch.cat(before), torch.cat(after)
        decibels = psnr(real, other)
        return {
            "tokenizer.psnr": Figure(decibels if math.isfinite(decibels) else None, len(real)),
            "tokenizer.ssim": Figure(ssim(real, other), len(real)),
        }


def _checked(name: str, clips: object, count: int, least: int = 1) -> Tensor:
    clips = check_pixels(name, clips, "[b, t, h, w, 3]")
    if len(clips) != count or clips.shape[1] < least:
        raise bad(name, tuple(clips.shape), f"{count} clips of at least {least} frames")
    return clips.cpu()


def _possible(abilities: Abilities, tasks: Sequence[str] | None) -> list[str]:
    able = [task for task, name in TASKS.items() if getattr(abilities, name) is not None]
    chosen = able if tasks is None else list(tasks)
    if not chosen or any(task not in able for task in chosen) or len(set(chosen)) < len(chosen):
        raise bad("tasks", chosen, f"some of {able}, each once: what the model is able to")
    return chosen


def _describe(dataset: Clips) -> dict[str, Any]:
    told = {name: getattr(dataset, name) for name in ("split", "seed") if hasattr(dataset, name)}
    return {"kind": type(dataset).__name__, "count": len(dataset), **told}


def _json(notes: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(notes), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise bad("notes", notes, f"what JSON can hold ({error})") from error
