"""Is it right on a device: goldens, laws, and what bfloat16 costs."""

import json
import subprocess
import sys
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.gpu_rows import Asked, Row, rms_error
from contar.backbones import take
from recipes import nova

ROOT = Path(__file__).parents[1]
GOLDENS = ROOT / "tests" / "goldens"


def goldens(asked: Asked, rows: list[Row]) -> None:
    """Hold every golden in float32, by the bounds that hold on a CPU."""
    sys.path.insert(0, str(ROOT / "tests" / "parity"))
    import check  # type: ignore[import-not-found]

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    folders = sorted(path.parent for path in GOLDENS.glob("*/case.json"))
    if asked.tiny:
        folders = [folder for folder in folders if folder.name in ("image", "mar")]
    else:
        folders.append(GOLDENS / "checkpoint")
    for folder in folders:
        cases = check.check_folder(folder, asked.device)
        results = list(islice(cases, 1 if asked.tiny else None))
        names = list(dict.fromkeys(name for result in results for name in result.errors))
        worst = {
            name: max(r.errors[name][0] for r in results if name in r.errors) for name in names
        }
        cells = {"cases": str(len(results)), **{n: f"{e:.0e}" for n, e in worst.items()}}
        rows.append(Row(folder.name, cells, held=all(result.passed for result in results)))
        for result in results:
            if not result.passed:
                rows.append(Row(str(result), held=False))


def laws(asked: Asked, rows: list[Row]) -> None:
    """Run the laws of tests/device."""
    parallel = ["-n", "4"] if asked.device == "cuda" and find_spec("xdist") else []
    command = [
        sys.executable, "-m", "pytest", str(ROOT / "tests" / "device"), "-q", "-W", "default",
        "-p", "no:cacheprovider", "--device", asked.device, "-rfEs", "--tb=short",
        *parallel, *(["-k", "head"] if asked.tiny else []),
    ]  # fmt: skip
    told = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=max(1.0, asked.left())
    )
    (asked.out / "laws.txt").write_text(told.stdout + told.stderr)
    last = [line for line in told.stdout.splitlines() if line.strip()][-1:]
    rows.append(Row("tests/device", {"pytest": "".join(last)}, held=told.returncode == 0))
    for line in told.stdout.splitlines():
        if line.startswith(("FAILED", "ERROR")):
            rows.append(Row(line, held=False))


def bfloat16(asked: Asked, rows: list[Row]) -> None:
    """Predict each set after recorded tokens: how far bfloat16's conditions are from float32's."""
    cases = {"image": "generate_flow", "video_abs": "generate_flow", "video_rope": "generate_flow"}
    for folder, case in list(cases.items())[: 1 if asked.tiny else None]:
        exact = conditions(folder, case, torch.float32, "plain", "cpu")
        for backend in (None, "plain"):
            ours = conditions(folder, case, torch.bfloat16, backend, asked.device)
            errors = [rms_error(a.cpu(), b) for a, b in zip(ours, exact, strict=True)]
            told = "plain operations" if backend else "as chosen"
            cells = {"sets": str(len(errors)), "median": f"{np.median(errors):.1e}"}
            cells["largest"] = f"{max(errors):.1e}"
            rows.append(Row(f"{folder}, conditions, attention {told}", cells, max(errors) < 0.1))


def conditions(
    folder: str, case: str, dtype: torch.dtype, backend: Any, device: str
) -> list[torch.Tensor]:
    """Return the conditions of a golden's sets, each after the recorded tokens."""
    sys.path.insert(0, str(ROOT / "tests" / "parity"))
    import nova_case  # type: ignore[import-not-found]

    description = json.loads((GOLDENS / folder / "case.json").read_text())
    told = description["cases"][case]
    with np.load(GOLDENS / folder / f"{case}.npz") as archive:
        z = {name: torch.from_numpy(array).to(device) for name, array in archive.items()}
    model = nova_case.load_model(description, device)
    torch.nn.Module.to(model, dtype)
    plan = nova.GenerationPlan(
        frames=told["frames"], sets=told["ar_steps"], diffusion_steps=told["diffusion_steps"],
        guidance=nova.Guidance(told["guidance_scale"]),
        grid=(int(z["latents"].shape[3]), int(z["latents"].shape[4])),
    )  # fmt: skip
    seen: list[torch.Tensor] = []
    sizes = plan.sizes(z["order"].shape[1])
    ends = np.cumsum((0, *sizes))
    turns = iter([(t, k) for t in range(plan.frames) for k in range(len(sizes))])

    def recorded(cond: torch.Tensor, **_: Any) -> torch.Tensor:
        t, k = next(turns)
        seen.append(cond.float())
        return take(z[f"sample.{t}.{k}"], z["order"][:, ends[k] : ends[k + 1]])

    with mock.patch.object(model.head, "sample", recorded):
        nova.generate(
            model, z["prompt_embeds"].to(dtype), plan, order=z["order"], backend=backend,
            motion_flow=told.get("motion_flow") if model.motion else None,
        )  # fmt: skip
    return seen
