"""The command line of caches: a folder of files in one go, or shards in tasks."""

import functools
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from recipes._cli.engines import (
    Task,
    Work,
    alone,
    device_kind,
    device_of,
    parent_of,
)

if TYPE_CHECKING:
    from recipes.nova import NovaPipeline


@functools.lru_cache(maxsize=1)
def _loaded(model: str, device: str | None) -> "NovaPipeline":
    """Return the pipeline, once a process, whose tasks follow one another."""
    import torch

    from recipes import nova

    pipe = nova.from_pretrained(model, dtype=torch.float32)
    pipe.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return pipe


@dataclass(frozen=True)
class Caching(Task):
    """A task of `contar cache` over shards.

    Attributes:
        folder: of the shards, absolute.
        out: of the cache, absolute.
        model: the pipeline.
        kind: of device; None for what is there.
        size: frames, rate, height and width of a clip.
        retry: those clips and shards that failed.
    """

    folder: str
    out: str
    model: str
    kind: str | None
    size: dict[str, Any]
    retry: bool

    def work(self, rank: int, tasks: int) -> None:
        """Encode the shards of a rank."""
        from datatrove.utils.logging import logger

        from contar.training import encode_shards
        from recipes.clips import encoder_of

        pipe = _loaded(self.model, device_of(rank, None, self.kind))
        encode_shards(
            Path(self.folder),
            Path(self.out),
            encoder_of(pipe, self.size),
            rank=rank,
            tasks=tasks,
            retry=self.retry,
            report=logger.info,
            ended=self.orphaned,
        )


@tyro.conf.configure(tyro.conf.DisallowNone)
def cache(
    folder: tyro.conf.Positional[Path],
    out: Path,
    model: str = "moving-digits",
    frames: int | None = None,
    fps: float | None = None,
    retry: bool = False,
    work: Annotated[Work, tyro.conf.arg(name="")] = Work(),  # noqa: B008 - it is frozen
) -> None:
    """Encode captioned videos or pictures once, for `contar train cached`.

    Shards are encoded one by one, in as many processes as there are; the same call goes on.

    Args:
        folder: of videos and pictures, each beside a .txt of the same name; or of webdataset's
            shards (.tar), as `contar prepare` writes them.
        out: folder of the cache, to be made.
        model: the pipeline whose tokenizer and text encoder are taken, as in `generate`.
        frames: of a clip, 1 for pictures; the model's default if left out.
        fps: frames per second, likewise.
        retry: clips and shards that failed, no others.
        work: how it is done, of shards.
    """
    from contar._errors import bad, check_count, check_number

    if not folder.is_dir():
        raise FileNotFoundError(f"folder: no folder {str(folder)!r}")
    if frames is not None:
        check_count("frames", frames)
    if fps is not None:
        check_number("fps", fps, 0.01)
    if any(folder.glob("*.tar")):
        _shards(folder, out, model, frames, fps, retry, work)
        return
    if retry or work != Work():
        got = f"{folder} without .tar files beside options of shards"
        raise bad("folder", got, "shards, or none of these options")
    _files(folder, out, model, frames, fps)


def _files(folder: Path, out: Path, model: str, frames: int | None, fps: float | None) -> None:
    """Make a cache of captioned files, as a whole or not at all."""
    from contar._errors import bad
    from recipes.clips import make_cache

    if out.exists():
        raise bad("out", str(out), "a folder that does not exist yet")
    made = make_cache(folder, _loaded(model, None), out, frames=frames, fps=fps)
    print(f"{len(made)} clips: contar train cached --cache {out} --model {model} --out RUN")


def _shards(
    folder: Path,
    out: Path,
    model: str,
    frames: int | None,
    fps: float | None,
    retry: bool,
    work: Work,
) -> None:
    """Make a cache of shards, or go on with it."""
    from contar.data import shard_files
    from contar.training import (
        failed_clips,
        join_cache,
        plan_cache,
        shards_left,
    )
    from recipes.clips import clip_size, made_with

    kind = device_kind(None, work.engine, work.options())
    place = str(Path(model).absolute()) if Path(model).exists() else model
    pipe = _loaded(place, device_of(0, None, kind or "cpu"))
    size = clip_size(pipe, frames=frames, fps=fps)
    known = {"data": folder.resolve().name, **made_with(pipe)}
    with alone(out / "run", work.engine):
        settings = {"model": model, "device": kind, **size}
        plan_cache(shard_files(folder), out, made_with=known, settings=settings, tasks=work.tasks)
        ranks = sorted({number % work.tasks for number in shards_left(out, retry=retry)})
        if work.engine == "local":
            shutil.rmtree(out / "run" / "parts", ignore_errors=True)  # what killed runs left
        run, source, target = (str(path.absolute()) for path in (out / "run", folder, out))
        task = Caching(run, parent_of(work.engine), source, target, place, kind, size, retry)
        if not work.carry(task, ranks, "the same command, later, ends it"):
            return
        if left := shards_left(out):
            raise SystemExit(f"contar: {len(left)} shards are not done: without --retry it goes on")
        failed = list(failed_clips(out))
        count = join_cache(out)
    print(f"{count} clips: contar train cached --cache {out} --model {model} --out RUN")
    if failed:
        first = f"the first is {failed[0].file}: {failed[0].error}"
        raise SystemExit(f"contar: {len(failed)} failed, {first}; --retry tries them again")
