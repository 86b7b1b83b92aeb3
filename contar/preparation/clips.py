"""Which shots are kept, in shards that several tasks cut, and the cache that these make."""

import json
import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from contar._errors import bad, check_count
from contar._files import read_json, write_whole
from contar._work import check_same
from contar.data import join_shards
from contar.preparation.expression import Condition
from contar.preparation.gathering import SCORES, read_scores
from contar.preparation.plan import RUN, read_plan

KEPT, PLAN, _INDEX = "kept.jsonl", "plan.json", "cache.json"


def plan_clips(
    out: str | os.PathLike[str], condition: str, *, name: str = "clips", shard: int = 1000
) -> int:
    """Write which shots are kept, or see that it is these; return how many shards they make.

    Args:
        out: folder with scores.
        condition: on a row of them, as `Condition` reads it.
        name: of the folder in OUT that the shards come to.
        shard: clips of a file.

    Raises:
        FileNotFoundError: there are no scores.
        ValueError: a condition that is refused, that holds of nothing, or that holds of shots
            without a caption; or a folder begun with another condition, other scores, another size
            of shards.
    """
    place = Path(out)
    if Path(name).name != name or name in (RUN, "", ".", ".."):
        raise bad("name", name, f"the name of a folder in OUT other than {RUN!r}")
    settings = read_plan(out).preparation
    holds = Condition(condition, settings.columns(), name="apply")
    wanted = {
        "preparation": settings.to_json(),
        "condition": condition.strip(),
        "scores": _digest(place / SCORES),
    }
    work, made = work_of(out, name), place / name
    plan = {**wanted, "shard": check_count("shard", shard)}
    if made.exists() and not (work / PLAN).is_file():
        raise bad("name", str(made), "a folder that does not exist yet")
    if (work / PLAN).is_file():
        old = read_json(work / PLAN)
        begun = {key: value for key, value in old.items() if key != "kept"}
        check_same(
            "name", name, begun, plan, "the same condition, scores and shards, or another name"
        )
        return -(-old["kept"] // shard)
    part = place / RUN / f".{KEPT}.part"
    try:
        kept = _keep(read_scores(out), holds, part)
        work.mkdir(parents=True, exist_ok=True)
        os.replace(part, work / KEPT)
    finally:
        part.unlink(missing_ok=True)
    write_whole(work / PLAN, json.dumps({**plan, "kept": kept}, indent=1) + "\n")
    return -(-kept // shard)


def join_clips(
    out: str | os.PathLike[str], name: str = "clips"
) -> tuple[int, list[dict[str, Any]]]:
    """Make OUT/NAME of the shards; return how many clips it has, and those that failed.

    Raises:
        FileNotFoundError: a shard has not been written.
        ValueError: every clip failed.
    """
    work, made = work_of(out, name), Path(out) / name
    plan = read_json(work / PLAN)
    facts = [read_json(facts_of(work, n)) for n in range(-(-plan["kept"] // plan["shard"]))]
    failed = [failure for each in facts for failure in each["failed"]]
    whole = [each["shard"] for each in facts if each["shard"] is not None]
    if not whole:
        raise bad("apply", f"{len(failed)} clips that all failed: {failed[0]}", "one that is cut")
    if not made.exists():
        made_with = {key: plan[key] for key in ("preparation", "condition", "scores")}
        join_shards(work / "made", whole, made_with)
        os.replace(work / "made", made)
    return sum(each["samples"] for each in whole), failed


def shards_left(
    out: str | os.PathLike[str], name: str = "clips", *, retry: bool = False
) -> list[int]:
    """Return the numbers of the shards that `cut_clips` would write.

    With `retry`, those in which clips failed are no longer there, nor is OUT/NAME.
    """
    work, made = work_of(out, name), Path(out) / name
    plan = read_json(work / PLAN)
    files = [facts_of(work, number) for number in range(-(-plan["kept"] // plan["shard"]))]
    again = [f for f in files if f.is_file() and read_json(f)["failed"]] if retry else []
    if again and made.exists():
        (made / _INDEX).unlink(missing_ok=True)
        os.replace(made, work / "made")
    for file in again:
        file.unlink()
    return [number for number, file in enumerate(files) if not file.is_file()]


def _keep(rows: Iterable[dict[str, Any]], holds: Condition, part: Path) -> int:
    """Write the rows of which a condition holds; return how many, at least one."""
    kept = 0
    with part.open("w", encoding="utf-8") as stream:
        for row in rows:
            if holds(row):
                if not row["caption"]:
                    got = f"{row['name']}#{row['shot']} without a caption"
                    allowed = "captions, or a condition as 'caption_length > 0'"
                    raise bad("apply", f"{holds.text!r}, which keeps {got}", allowed)
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
                kept += 1
    if not kept:
        raise bad("apply", f"{holds.text!r}, which keeps nothing", "a condition that keeps a shot")
    return kept


def work_of(out: str | os.PathLike[str], name: str) -> Path:
    """Return the folder in which shards are made."""
    return Path(out) / RUN / "cut" / name


def facts_of(work: Path, number: int) -> Path:
    """Return the file that says that a shard is made, and what it holds."""
    return work / "facts" / f"{number:05d}.json"


def _digest(file: Path) -> str:
    digest = sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
