"""The command line of caches: a folder of files in one go, or shards in tasks."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from recipes._cli.engines import Work, device_of, say_failed
from recipes._cli.pipes import Loading, Options, load_once


def cache(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")],
    out: Path,
    model: str = "moving-digits",
    frames: int | None = None,
    fps: float | None = None,
    retry: bool = False,
    work: Options[Work] = Work(),
) -> None:
    """Encode captioned videos or pictures once, for `contar train cached`.

    Shards are encoded one by one, in as many processes as there are, and the same call goes on; a
    folder of files is encoded in one go.

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
    loading, failed = Loading(model, dtype="float32"), []
    if any(folder.glob("*.tar")):
        done = _share(folder, out, loading, {"frames": frames, "fps": fps}, retry, work)
        if done is None:
            return
        failed, count = done
    elif retry or work != Work():
        got = f"{folder} without .tar files beside options of shards"
        raise bad("folder", got, "shards, or none of these options")
    elif out.exists():
        raise bad("out", str(out), "a folder that does not exist yet")
    else:
        from recipes.clips import make_cache

        count = len(make_cache(folder, load_once(loading), out, frames=frames, fps=fps))
    print(f"{count} clips: contar train cached --cache {out} --model {model} --out RUN")
    say_failed(failed)


def _share(
    folder: Path, out: Path, loading: Loading, asked: dict[str, Any], retry: bool, work: Work
) -> tuple[list[Any], int] | None:
    """Return what failed, and how many clips a cache of shards has; None where Slurm has it now."""
    from contar.data import shard_files
    from contar.training import failed_clips, join_cache, plan_cache, shards_left
    from recipes.clips import clip_size, made_with

    work.options()  # whether they are any
    kind, place = work.device_kind(), loading.anywhere()
    here = device_of(0, kind) if work.engine == "local" else "cpu"  # the tasks' may be elsewhere
    pipe = load_once(replace(place, device=here))
    size, run = clip_size(pipe, **asked), out / "run"
    known = {"data": folder.resolve().name, **made_with(pipe)}
    with work.alone(run):
        settings = {"model": loading.model, "device": kind, **size}
        plan_cache(
            shard_files(folder), out, made_with=known, settings=settings, tasks=work.tasks,
            retry=retry,
        )  # fmt: skip
        if work.engine == "local":
            shutil.rmtree(run / "parts", ignore_errors=True)  # what killed runs left
        folders = {"folder": folder.absolute(), "out": out.absolute()}
        do = partial(_encode, place, kind, size, retry=retry, **folders)
        left = shards_left(out, retry=retry)
        if not work.share(run, do, left, "the same command, later, ends it"):
            return None
        if left := shards_left(out):
            raise SystemExit(f"contar: {len(left)} shards are not done: without --retry it goes on")
        return list(failed_clips(out)), join_cache(out)


def _encode(
    loading: Loading, kind: str | None, size: dict[str, Any], rank: int, **share: Any
) -> None:
    """Encode the shards of a rank."""
    from contar.training import encode_shards
    from recipes.clips import encoder_of

    pipe = load_once(replace(loading, device=device_of(rank, kind)))
    encode_shards(encode=encoder_of(pipe, size), rank=rank, **share)
