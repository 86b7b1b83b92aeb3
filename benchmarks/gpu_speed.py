"""How fast is it on a device: whole generations, their parts, heads, attention."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_rows import Asked, Row, error, rms_error, timed_rows
from benchmarks.machine import HEADS, peak
from benchmarks.official import TINY, official_nova
from contar._timing import in_turn, now
from contar.attention import BlockLayout, attend, dense_mask, prepare_mask
from contar.conditioning import Guidance
from contar.generation import Graphs
from contar.heads import Noise, make_head
from recipes import mar, nova

PRESET = "nova-d48w1024-osp480"


def machine(asked: Asked, rows: list[Row]) -> None:
    """Measure the fastest product of large matrices and the fastest copy."""
    for dtype in ("bfloat16", "float32"):
        asked.peak[dtype] = peak(asked.device, dtype)
        cells = {"rate": f"{asked.peak[dtype] / 1e12:.3g} TFLOP/s"}
        rows.append(Row(f"product of large matrices, {dtype}", cells))
    source = torch.ones(2**20 if asked.tiny else 2**30, device=asked.device)
    target = torch.empty_like(source)
    copy = in_turn({"copy": lambda: target.copy_(source)}, device=asked.device, rounds=5)
    rate = 2 * source.numel() * 4 / min(copy["copy"])
    rows.append(Row("copy of a large tensor", {"rate": f"{rate / 1e9:.4g} GB/s"}))


def nova_480p(asked: Asked, dtype: torch.dtype = torch.bfloat16) -> nova.Nova:
    """Return the released 480p model's network, with random weights (tiny: a small one's)."""
    torch.manual_seed(0)
    config = TINY if asked.tiny else PRESET
    model = nova.build(config, device=asked.device, dtype=dtype).eval()
    for layer in (model.head.network.out, model.adapter.up if model.adapter else None):
        if layer is not None:  # large enough that what is compared is not lost in the noise
            torch.nn.init.normal_(layer.weight, std=0.02)
    return model


def texts(model: nova.Nova, batch: int) -> torch.Tensor:
    sizes = model.sizes
    states = torch.randn(
        batch, sizes.text_length, sizes.text_width, generator=torch.Generator().manual_seed(0)
    )
    return states.to(model.device, model.dtype)


def drawn(asked: Asked) -> torch.Generator:
    return torch.Generator(asked.device).manual_seed(1)


def plan_of(asked: Asked, **changes: Any) -> nova.GenerationPlan:
    """Return 9 frames in 64 sets of 25 steps, guidance 5 (tiny: 3 in 4 of 3)."""
    small = {"frames": 3, "sets": 4, "diffusion_steps": 3}
    return nova.GenerationPlan(**{**(small if asked.tiny else {"frames": 9}), **changes})


def flops_of_a_frame(asked: Asked, model: nova.Nova, plan: nova.GenerationPlan) -> float:
    """Return the operations of one frame of one sample."""
    one = plan_of(asked, frames=1, sets=plan.sets, diffusion_steps=plan.diffusion_steps)
    with FlopCounterMode(display=False) as counter:
        nova.generate(model, texts(model, 1), one, generator=drawn(asked))
    return counter.get_total_flops()


def _nova(asked: Asked, rows: list[Row], batch: int, rounds: int, **changes: Any) -> None:
    """Time generations: one by one, replayed as graphs, and the official code's, in turn."""
    model, plan, graphs = nova_480p(asked), plan_of(asked, **changes), Graphs()
    text = texts(model, batch)

    def generate(plan: nova.GenerationPlan, **options: Any) -> torch.Tensor:
        return nova.generate(model, text, plan, generator=drawn(asked), **options)

    # The second frame replays; of many samples in few sets, for the time of one by one.
    few = plan_of(asked, frames=2, sets=plan.sets if batch == 1 else 4)
    found = error(generate(few, graphs=graphs), generate(few))
    if few.sets != plan.sets:
        generate(plan_of(asked, **{**changes, "frames": 1}), graphs=graphs)
    title = f"{plan.frames} frames of {_tokens(model)} tokens"
    title += f", {plan.sets} sets, {plan.diffusion_steps} steps, guidance 5, bf16, batch {batch}"
    told = {"error": f"{found:.0e}"}
    rows.append(Row(f"{title}: graphs against one by one", told, held=found < 1e-3))
    flops = plan.frames * batch * flops_of_a_frame(asked, model, plan)
    runs: dict[str, Callable[[], object]] = {}
    if asked.official is not None:
        theirs = official_nova(asked.official, model, tiny=asked.tiny)
        theirs(text, plan_of(asked, frames=1, sets=4), drawn(asked))
        runs["official"] = lambda: theirs(text, plan, drawn(asked))
    runs["contar, graphs"] = lambda: generate(plan, graphs=graphs)
    if batch == 1:
        runs["contar"] = lambda: generate(plan)
    if asked.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = in_turn(runs, device=asked.device, rounds=rounds)
    rows += timed_rows(title, seconds, flops=flops, peak=asked.peak.get("bfloat16"))
    if asked.device == "cuda":
        most = torch.cuda.max_memory_allocated() / 2**30
        rows[-1].cells["memory of all, GiB"] = f"{most:.1f}"


def _tokens(model: nova.Nova) -> int:
    height, width = model.sizes.latent
    return height * width // model.sizes.patch**2


def nova_one(asked: Asked, rows: list[Row]) -> None:
    """Compare with the official code in float32, then time batch 1."""
    if asked.official is not None:
        model = nova_480p(asked, torch.float32)
        theirs, text = official_nova(asked.official, model, tiny=asked.tiny), texts(model, 1)
        plan = plan_of(asked, frames=2, sets=4)
        ours = nova.generate(model, text, plan, generator=drawn(asked))
        found = error(ours, theirs(text, plan, drawn(asked)))
        told = "2 frames in 4 sets, float32, against the official code from the same generator"
        rows.append(Row(told, {"error": f"{found:.0e}"}, held=found < 1e-3))
        del model, theirs
    _nova(asked, rows, 1, 1 if asked.tiny else 2)


def nova_eight(asked: Asked, rows: list[Row]) -> None:
    """Time batch 8, in 2 frames: each of a generation takes as long."""
    _nova(asked, rows, 2 if asked.tiny else 8, 1, frames=2)


def nova_compiled(asked: Asked, rows: list[Row]) -> None:
    """Time compiled blocks and head, replayed as graphs."""
    if asked.tiny:  # the compiler takes a minute
        return
    model, plan = nova_480p(asked), plan_of(asked)
    few = plan_of(asked, frames=2, sets=plan.sets)
    one = plan_of(asked, frames=1, sets=1)
    wanted = nova.generate(model, texts(model, 1), one, generator=drawn(asked))
    model.compile()
    start = now(asked.device)
    found = rms_error(nova.generate(model, texts(model, 1), one, generator=drawn(asked)), wanted)
    cells = {"error": f"{found:.0e}", "s": f"{now(asked.device) - start:.0f}"}
    rows.append(Row("compiled against not, one frame in one set", cells, held=found < 0.1))
    for batch in (1, 8):
        text, graphs = texts(model, batch), Graphs()
        run = partial(nova.generate, model, text, graphs=graphs)
        start = now(asked.device)
        run(few, generator=drawn(asked))
        cells = {"s": f"{now(asked.device) - start:.0f}"}
        rows.append(Row(f"batch {batch}: the first two frames, compiler and capture", cells))
        seconds = in_turn(
            {"contar, compiled, graphs": lambda: run(plan, generator=drawn(asked))},
            device=asked.device, rounds=1,
        )  # fmt: skip
        rows += timed_rows(
            f"9 frames, 64 sets, 25 steps, bf16, batch {batch}", seconds, flops=None, peak=1.0
        )


def nova_paper(asked: Asked, rows: list[Row]) -> None:
    """Time the paper's evaluation: 128 sets, guidance 7."""
    model, graphs = nova_480p(asked), Graphs()
    plan = plan_of(asked, sets=5 if asked.tiny else 128, guidance=nova.Guidance(7.0))
    text = texts(model, 1)
    few = plan_of(asked, frames=3, sets=plan.sets, guidance=plan.guidance)
    nova.generate(model, text, few, generator=drawn(asked), graphs=graphs)
    run = partial(nova.generate, model, text, plan, graphs=graphs)
    seconds = in_turn(
        {"contar, graphs": lambda: run(generator=drawn(asked))}, device=asked.device, rounds=1
    )
    title = f"{plan.frames} frames, {plan.sets} sets, {plan.diffusion_steps} steps, guidance 7"
    rows += timed_rows(f"{title}, bf16, batch 1", seconds)


def nova_parts(asked: Asked, rows: list[Row]) -> None:
    """Say where the time of a frame goes, and how many kernels a set launches."""
    model, plan = nova_480p(asked), plan_of(asked, frames=2, sets=4 if asked.tiny else 64)
    text = texts(model, 1)
    runs: dict[str, Callable[[], object]] = {
        "contar": lambda: nova.generate(model, text, plan, generator=drawn(asked))
    }
    runs["contar"]()
    parts = {
        "temporal tower": (model.temporal, "forward"),
        "spatial tower": (model.spatial, "forward"),
        "head": (model.head, "sample"),
    }
    with metered(parts, asked.device) as seconds:
        start = now(asked.device)
        runs["contar"]()
        whole = now(asked.device) - start
    for name, took in seconds().items():
        rows.append(
            Row(f"2 frames, batch 1: {name}", {"s": f"{took:.3f}", "of all": f"{took / whole:.0%}"})
        )
    rows.append(Row("2 frames, batch 1: all", {"s": f"{whole:.3f}", "of all": "100%"}))
    if asked.official is not None:
        theirs = official_nova(asked.official, model, tiny=asked.tiny)
        runs["official"] = lambda: theirs(text, plan, drawn(asked))
    graphs = Graphs()
    runs["contar, graphs"] = lambda: nova.generate(
        model, text, plan, generator=drawn(asked), graphs=graphs
    )
    plan = plan_of(asked, frames=1, sets=4 if asked.tiny else 16)
    for name, run in runs.items():
        rows.append(profiled(name, run, plan.sets, asked))


def profiled(name: str, run: Callable[[], object], sets: int, asked: Asked) -> Row:
    """Count what one run launches; its longest kernels go to a file."""
    cuda = asked.device == "cuda"
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if cuda else []
    for _ in range(2):
        run()
    with torch.profiler.profile(activities=kinds) as profile:
        start = now(asked.device)
        run()
        wall = now(asked.device) - start
    averages = profile.key_averages()
    by = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    slug = name.replace(", ", "-")
    (asked.out / f"profile-{slug}.txt").write_text(
        averages.table(sort_by=by, row_limit=30, max_name_column_width=90)
    )
    launched = [e for e in averages if e.key.startswith("cudaLaunch") or "LaunchKernel" in e.key]
    replayed = sum(e.count for e in averages if e.key.startswith("cudaGraphLaunch"))
    cells = {"launches a set": f"{sum(e.count for e in launched) / sets:.0f}"}
    cells["graphs a set"] = f"{replayed / sets:.1f}"
    cells["operations a set"] = (
        f"{sum(e.count for e in averages if e.key.startswith('aten::')) / sets:.0f}"
    )
    if cuda:
        busy = sum(e.self_device_time_total for e in averages if e.device_type.name == "CUDA") / 1e6
        cells["GPU busy"] = f"{busy:.3f} of {wall:.3f} s (under the profiler)"
    return Row(f"launches: {name}", cells)


@contextmanager
def metered(
    parts: dict[str, tuple[Any, str]], device: str
) -> Iterator[Callable[[], dict[str, float]]]:
    """Put events before and after each part's calls; yield the function that adds them up."""
    marks: dict[str, list[tuple[Any, Any]]] = {name: [] for name in parts}

    def mark() -> Any:
        if device != "cuda":
            return now(device)
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            start = mark()
            result = function(*arguments, **options)
            marks[name].append((start, mark()))
            return result

        return call

    def total() -> dict[str, float]:
        now(device)
        if device != "cuda":
            return {name: sum(b - a for a, b in pairs) for name, pairs in marks.items()}
        return {name: sum(a.elapsed_time(b) for a, b in p) / 1e3 for name, p in marks.items()}

    for name, (owner, method) in parts.items():
        setattr(owner, method, between(name, getattr(owner, method)))
    try:
        yield total
    finally:
        for owner, method in parts.values():
            delattr(owner, method)


def heads(asked: Asked, rows: list[Row]) -> None:
    """Draw a set's tokens by heads of the sizes that are in use, step by step and as a graph."""
    chosen = dict(itertools.islice(HEADS.items(), 1)) if asked.tiny else HEADS
    for (name, sizes), steps, tokens in itertools.product(
        chosen.items(),
        (4,) if asked.tiny else (1, 4, 25),
        (1, 16) if asked.tiny else (1, 16, 256, 4096),
    ):
        width, depth, values, cond_width = sizes
        torch.manual_seed(0)
        named = {"name": "flow", "width": width, "depth": depth, "steps": steps}
        head: Any = make_head(named, values, cond_width)
        head, graphs = head.to(asked.device, torch.bfloat16).eval(), Graphs()
        graphs.bind(head)
        pair = torch.randn(2, 1, tokens, cond_width).to(asked.device, torch.bfloat16)

        def noise() -> Noise:
            return Noise(drawn(asked), asked.device)

        def sample(noise: Noise, pair: torch.Tensor) -> torch.Tensor:
            return head.sample(pair[0], uncond=pair[1], guidance=Guidance(5.0), noise=noise)

        with torch.no_grad():
            wanted = sample(noise(), pair)
            graphs("set", sample, noise(), pair)
            found = error(graphs("set", sample, noise(), pair), wanted)
            runs = {
                "one by one": lambda: sample(noise(), pair),
                "graph": lambda: graphs("set", sample, noise(), pair),
            }
            few = 3 if asked.tiny else 7
            seconds = in_turn(runs, device=asked.device, rounds=few)
            with FlopCounterMode(display=False) as counter:
                sample(noise(), pair)
        title = f"{name}, {depth} x {width}, {tokens} tokens, {steps} steps, guided, bf16"
        if not found < 1e-2:
            rows.append(Row(title, {"error": f"{found:.0e}"}, held=False))
            continue
        made = timed_rows(
            title, seconds, flops=counter.get_total_flops(), peak=asked.peak.get("bfloat16")
        )
        made[-1].cells["error"] = f"{found:.0e}"
        rows += made


def attention(asked: Asked, rows: list[Row]) -> None:
    """Attend under NOVA's layout by each backend, the making of the mask apart."""
    frames, tokens, prefix = (3, 16, 8) if asked.tiny else (9, 360, 258)
    blocks = BlockLayout((prefix + tokens, *[tokens] * (frames - 1)))
    shape = (3, 1, 16, blocks.keys, 64)
    q, k, v = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(
        asked.device, torch.bfloat16
    )
    wanted = attend(*(x.float() for x in (q, k, v)), mask=blocks, backend="plain")
    title = f"{frames} frames of {tokens} behind {prefix}, 16 heads of 64, bf16"
    runs: dict[str, Callable[[], torch.Tensor]] = {}
    names: dict[str, Any] = {
        "sdpa, dense mask": "sdpa",
        "sdpa, a call a block": "sdpa",
        "plain": "plain",
    }
    names |= {"flex": "flex"} if asked.device == "cuda" else {}
    for name, backend in names.items():
        start = now(asked.device)
        dense = name == "sdpa, dense mask"
        mask = (
            dense_mask(blocks, asked.device)
            if dense
            else prepare_mask(blocks, backend, asked.device)
        )
        made = now(asked.device) - start
        runs[name] = partial(attend, q, k, v, mask=mask, backend=backend)
        found = rms_error(runs[name](), wanted)
        cells = {"mask made in, ms": f"{1e3 * made:.2f}", "error": f"{found:.0e}"}
        rows.append(Row(f"{title}: {name}", cells, held=found < 2e-2))
    if asked.device == "cuda":
        for kind in ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION"):
            one = partial(_by, kind, q, k, v, blocks)
            try:
                one()
            except RuntimeError as reason:
                rows.append(Row(f"{kind}: not run, {str(reason).splitlines()[0]}"))
            else:
                runs[f"sdpa, a call a block, {kind}"] = one
    with torch.no_grad():
        seconds = in_turn(runs, device=asked.device, rounds=7, inner=1 if asked.tiny else 10)
    flops = 4 * sum(
        blocks.sizes[i] * sum(blocks.sizes[: i + 1]) for i in range(frames)
    ) * 16 * 64  # fmt: skip
    rows += timed_rows(title, seconds, flops=flops, peak=asked.peak.get("bfloat16"))


def _by(kind: str, q: Any, k: Any, v: Any, mask: BlockLayout) -> torch.Tensor:
    with sdpa_kernel(getattr(SDPBackend, kind)):
        return attend(q, k, v, mask=mask, backend="sdpa")


def mar_huge(asked: Asked, rows: list[Row]) -> None:
    """Time MAR-H, 256 tokens in 64 sets of 100 steps, guidance 3."""
    torch.manual_seed(0)
    small = mar.MarConfig(
        encoder=mar.Tower(1, 64, 2), decoder=mar.Tower(1, 64, 2), head=mar.official_head(64, 1),
        latent=(8, 8), channels=4, patch=1, classes=3, buffer=4,
    )  # fmt: skip
    config = small if asked.tiny else "mar-huge"
    model = mar.build(config, device=asked.device, dtype=torch.bfloat16).eval()
    sets, steps = (4, 3) if asked.tiny else (64, 100)
    guided = mar.Guidance(3.0, start=1.0)
    plan = mar.GenerationPlan(sets=sets, diffusion_steps=steps, guidance=guided, rounding="floor")
    for batch in (1, 2) if asked.tiny else (1, 32, 256):
        labels = torch.arange(batch, device=asked.device) % 3
        run, graphs = partial(mar.generate, model, labels, plan), Graphs()
        wanted = run(generator=drawn(asked))
        run(generator=drawn(asked), graphs=graphs)
        found = error(run(generator=drawn(asked), graphs=graphs), wanted)  # as captured
        title = f"MAR-H, {sets} sets, {steps} steps, guidance to 3, bf16, batch {batch}"
        runs = {
            "contar": lambda: run(generator=drawn(asked)),
            "contar, graphs": lambda: run(generator=drawn(asked), graphs=graphs),
        }
        seconds = in_turn(runs, device=asked.device, rounds=1)
        made = timed_rows(title, seconds)
        for row, (took,) in zip(made, seconds.values(), strict=True):
            row.cells["s an image"] = f"{took / batch:.3f}"
        made[-1].cells["error"], made[-1].held = f"{found:.0e}", found < 1e-2
        rows += made


def moving_digits(asked: Asked, rows: list[Row]) -> None:
    """Time the network of the model that contar carries, its text encoder left out."""
    from recipes.moving_digits import network

    torch.manual_seed(0)
    model, graphs = nova.build(network(5), device=asked.device).eval(), Graphs()
    sets, steps = (4, 3) if asked.tiny else (16, 25)
    plan = nova.GenerationPlan(
        frames=2 if asked.tiny else 5,
        sets=sets,
        diffusion_steps=steps,
        guidance=nova.Guidance(1.75),
    )
    for batch in (1,) if asked.tiny else (1, 64):
        text = texts(model, batch)
        run = partial(nova.generate, model, text, plan)
        for _ in range(2):
            run(generator=drawn(asked), graphs=graphs)
        runs = {
            "contar": lambda: run(generator=drawn(asked)),
            "contar, graphs": lambda: run(generator=drawn(asked), graphs=graphs),
        }
        title = f"moving digits, {plan.frames} frames, {sets} sets, {steps} steps"
        title += f", float32, batch {batch}"
        seconds = in_turn(runs, device=asked.device, rounds=1 if asked.tiny else 3)
        rows += timed_rows(title, seconds)
