"""What holds on every device: all backends and models compute what a CPU computes in float32.

`pytest tests/device` runs it on the GPU, where there is one, else on the CPU; `--device` names one.
"""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from heads import HEADS, make  # type: ignore[attr-defined]
from tiny_mar import PLAN, tiny_mar
from tiny_nova import CONFIGS, VIDEOS, texts  # type: ignore[import-not-found]
from torch.nn.attention import SDPBackend, sdpa_kernel

from contar.attention import BlockLayout, attend, dense_mask, prepare_mask, why_unavailable
from contar.backbones import TemporalTower
from contar.generation import Graphs
from recipes import mar, nova

LAYOUTS = {
    "whole": BlockLayout((48,)),
    "frames": BlockLayout((40, 16, 16, 16)),
    "coarse frames": BlockLayout((160, 144, 144)),
    "window": BlockLayout((40, 16, 16, 16), window=2, pinned=1),
    "cached": BlockLayout((40, 16, 16, 16), cached=2),
}
CHECKPOINT = Path(__file__).parents[1] / "goldens" / "checkpoint"
# Beyond float32's own rounding: half a unit in the last of bfloat16's 8 bits, and sums of such.
ALLOWED = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
SETS = nova.GenerationPlan(frames=3, sets=5, diffusion_steps=4, guidance=nova.Guidance(3.0))
STOCHASTIC = {"_class_name": "DDPMScheduler", "clip_sample": False, "timestep_spacing": "leading"}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def qkv(layout: BlockLayout, batch: int = 2) -> list[torch.Tensor]:
    shapes = [(batch, 2, n, 32) for n in (layout.queries, layout.keys, layout.keys)]
    return [torch.randn(*shape, generator=seeded(i)) for i, shape in enumerate(shapes)]


def of(model: Any, device: str, dtype: torch.dtype = torch.float32) -> Any:
    return model.to(device, dtype).eval()


@contextlib.contextmanager
def cuda_only(device: str):
    if device != "cuda":
        pytest.skip("of a GPU")
    yield


def close(ours: torch.Tensor, wanted: torch.Tensor, allowed: float) -> None:
    """Compare by the largest wanted value."""
    scale = wanted.abs().max().clamp(1e-12)
    error = ((ours.cpu().float() - wanted.cpu().float()).abs().max() / scale.cpu()).item()
    assert error <= allowed, f"{error:.1e} is over {allowed:.0e}"


@pytest.mark.parametrize("dtype", ALLOWED, ids=str)
@pytest.mark.parametrize("backend", ["plain", "sdpa", "dense", "flex", "xformers"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_attention_by_every_backend_is_the_formulas(layout, backend, dtype, device):
    name: Any = {"dense": "sdpa"}.get(backend, backend)
    if (reason := why_unavailable(name, device)) is not None:
        pytest.skip(reason)
    q, k, v = qkv(layout)
    wanted = attend(q, k, v, mask=layout, backend="plain")
    mask = dense_mask(layout, device) if backend == "dense" else prepare_mask(layout, name, device)
    ours = attend(*(x.to(device, dtype) for x in (q, k, v)), mask=mask, backend=name)
    assert ours.dtype == dtype
    close(ours, wanted, ALLOWED[dtype])


@pytest.mark.parametrize("backend", ["plain", "sdpa", "dense", "flex"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_gradients_of_attention_are_the_formulas(layout, backend, device):
    if backend == "flex" and device == "cpu":
        pytest.skip("flex has no gradients on the CPU")
    name: Any = {"dense": "sdpa"}.get(backend, backend)
    q, k, v = qkv(layout)
    weight = torch.randn(q.shape, generator=seeded(9))

    def gradients(where: str, mask: Any, backend: Any) -> tuple[torch.Tensor, ...]:
        given = [x.to(where).requires_grad_() for x in (q, k, v)]
        out = attend(*given, mask=mask, backend=backend)
        return torch.autograd.grad(out, given, weight.to(where))

    mask = dense_mask(layout, device) if backend == "dense" else prepare_mask(layout, name, device)
    for ours, wanted in zip(
        gradients(device, mask, name), gradients("cpu", layout, "plain"), strict=True
    ):
        close(ours, wanted, 1e-4)


@pytest.mark.parametrize("kind", ["FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION"])
def test_every_fused_kernel_computes_a_layout(kind, device):
    with cuda_only(device):
        layout = LAYOUTS["coarse frames"]
        given = [x.to(device, torch.bfloat16) for x in qkv(layout)]
        wanted = attend(*(x.float() for x in given), mask=layout, backend="plain")
        with sdpa_kernel(getattr(SDPBackend, kind)):
            close(attend(*given, mask=layout, backend="sdpa"), wanted, 2e-2)


@pytest.mark.parametrize("name", CONFIGS)
def test_nova_generates_what_it_generates_on_a_cpu(name, device):
    model = nova.build(CONFIGS[name])
    plan = nova.GenerationPlan(
        frames=1 if name == "image" else 3, sets=5, diffusion_steps=4, guidance=nova.Guidance(3.0)
    )
    text = texts(2, 0)
    wanted = nova.generate(model.eval(), text, plan, generator=seeded())
    ours = nova.generate(of(model, device), text.to(device), plan, generator=seeded())
    assert ours.device.type == device
    close(ours, wanted, 1e-4)


@pytest.mark.parametrize("name", VIDEOS)
def test_nova_generates_a_sample_alone_as_in_a_batch_and_with_a_window_as_within_its_cache(
    name, device
):
    model, text = of(nova.build(CONFIGS[name]), device), texts(2, 0).to(device)

    def generate(rows: slice, **changes: Any) -> torch.Tensor:
        plan = nova.GenerationPlan(frames=3, sets=4, diffusion_steps=3, **changes)
        generators = [seeded(seed) for seed in (0, 1)][rows]
        return nova.generate(model, text[rows], plan, generator=generators)

    both = generate(slice(0, 2))
    close(generate(slice(1, 2)), both[1:], 1e-4)
    close(generate(slice(0, 2), window=3), both, 1e-4)


def test_the_losses_and_gradients_of_nova_are_those_of_a_cpu(device):
    model, results = nova.build(CONFIGS["absolute, adapter"]), []
    latents = torch.randn(2, 2, 4, 4, 4, generator=seeded())
    for where in ("cpu", device):
        network = of(model, where)
        network.zero_grad()
        losses = nova.training_losses(
            network, latents.to(where), texts(2, 0).to(where), generator=seeded(1)
        )
        losses.total.backward()
        grads = {
            n: p.grad.cpu().clone() for n, p in network.named_parameters() if p.grad is not None
        }
        results.append({"loss": losses.total.detach(), **grads})
    wanted, ours = results
    assert ours.keys() == wanted.keys()
    for name, value in wanted.items():
        close(ours[name], value, 1e-3)


def test_mar_generates_and_learns_as_on_a_cpu(device):
    model, labels, results = tiny_mar(), torch.tensor([0, 2]), []
    latents = torch.randn(2, 2, 4, 8, generator=seeded())
    for where in ("cpu", device):
        network = of(model, where)
        made = mar.generate(network, labels.to(where), PLAN, generator=seeded())
        loss = mar.training_losses(
            network, latents.to(where), labels.to(where), generator=seeded(1)
        ).total
        results.append((made, loss.detach()))
    for ours, wanted in zip(results[1], results[0], strict=True):
        close(ours, wanted, 1e-4)


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_draws_what_it_draws_on_a_cpu_whatever_its_neighbours(kind, device):
    head = make(kind, 4, 8)
    cond = torch.randn(2, 6, 8, generator=seeded())
    wanted = head.sample(cond, noise=[seeded(0), seeded(1)])
    head = of(head, device)
    ours = head.sample(cond.to(device), noise=[seeded(0), seeded(1)])
    close(ours, wanted, 1e-4)
    close(head.sample(cond[1:].to(device), noise=[seeded(1)]), wanted[1:], 1e-4)


def test_a_temporal_tower_with_a_cache_is_the_whole_one(device):
    tower = of(TemporalTower(depth=2, width=32, heads=2), device)
    frames = torch.randn(2, 4, 6, 32, generator=seeded()).to(device)
    with torch.no_grad():
        whole = tower(frames)
        cache = tower.allocate_cache(2, 24)
        parts = [tower(frame, cache=cache) for frame in frames.split((1, 2, 1), dim=1)]
    close(torch.cat(parts, dim=1), whole, 1e-5)


@pytest.mark.parametrize("name", ["absolute, adapter", "rotary"])
def test_bfloat16_stays_near_float32(name, device):
    torch.manual_seed(0)
    model, text = nova.build(CONFIGS[name]), texts(2, 0)
    plan = nova.GenerationPlan(frames=2, sets=1, diffusion_steps=4, guidance=nova.Guidance(1.0))
    wanted = nova.generate(model.eval(), text, plan, generator=seeded())
    half = of(model, device, torch.bfloat16)
    ours = nova.generate(half, text.to(device, torch.bfloat16), plan, generator=seeded())
    error = (ours.cpu() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
    assert 0 < error < 0.1


@pytest.mark.parametrize("name", ["absolute, adapter", "rotary"])
@pytest.mark.parametrize("scheduler", [None, STOCHASTIC], ids=["flow", "ddpm"])
@pytest.mark.parametrize(
    "guidance",
    [
        nova.Guidance(3.0),
        nova.Guidance(3.0, start=0.5),
        nova.Guidance(3.0, renorm=0.5, renorm_over="frame"),
        nova.Guidance(1.0),
    ],
    ids=["constant", "rising", "renorm", "none"],
)
def test_sets_replayed_as_graphs_draw_what_they_draw_one_by_one(name, scheduler, guidance, device):
    model, graphs = of(nova.build(CONFIGS[name]), device), Graphs()
    plan = nova.GenerationPlan(
        frames=4, sets=5, diffusion_steps=4, guidance=guidance, scheduler=scheduler
    )
    for seed in (0, 1):  # the second generation replays from its first set on
        given: Any = (model, texts(2, seed).to(device), plan)
        wanted = nova.generate(*given, generator=seeded(seed))
        close(nova.generate(*given, generator=seeded(seed), graphs=graphs), wanted, 1e-5)
    assert len(graphs) == (5 if device == "cuda" else 0)


@pytest.mark.parametrize("start", [1.0, None], ids=["rising", "constant"])
def test_sets_of_mar_replayed_as_graphs_are_those_one_by_one(start, device):
    model, graphs = of(tiny_mar(), device), Graphs()
    plan = dataclasses.replace(PLAN, guidance=mar.Guidance(3.0, start=start))
    for seed in range(4):
        given: Any = (model, torch.tensor([seed % 3, 1], device=device), plan)
        wanted = mar.generate(*given, generator=seeded(seed))
        close(mar.generate(*given, generator=seeded(seed), graphs=graphs), wanted, 1e-5)
    assert len(graphs) == (3 if device == "cuda" else 0)


def test_graphs_see_weights_that_change_in_place_and_weights_that_move(device):
    model, graphs = of(nova.build(CONFIGS["absolute"]), device), Graphs()
    text = texts(1, 0).to(device)

    def both() -> None:
        wanted = nova.generate(model, text, SETS, generator=seeded())
        close(nova.generate(model, text, SETS, generator=seeded(), graphs=graphs), wanted, 1e-5)

    both()
    with torch.no_grad():
        model.head.network.out.weight += 1
    both()
    model.to("cpu")
    model.head.network.out = torch.nn.Linear(16, 2)
    of(model, device)
    for _ in range(2):
        both()


def test_the_set_loop_never_waits_for_the_gpu(device):
    with cuda_only(device):
        model, text = of(nova.build(CONFIGS["absolute, adapter"]), device), texts(2, 0).to(device)
        generator = torch.Generator(device).manual_seed(0)

        def watched(progress: Any) -> None:  # from the first set of a frame to its last
            last = progress.set == progress.sets - 1
            torch.cuda.set_sync_debug_mode("default" if last else "error")

        try:
            nova.generate(model, text, SETS, generator=generator, callback=watched)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_model_generates_the_same(mode, device):
    with cuda_only(device):  # on the CPU: tests/recipes/test_compiled.py
        model, text = of(nova.build(CONFIGS["absolute, adapter"]), device), texts(2, 0).to(device)
        wanted = nova.generate(model, text, SETS, generator=seeded())
        model.compile(mode=mode)
        close(nova.generate(model, text, SETS, generator=seeded()), wanted, 1e-4)


def test_a_pipeline_whose_parts_wait_on_the_cpu_makes_the_same_frames(device):
    with cuda_only(device):
        options: Any = {
            "num_frames": 5, "num_inference_steps": 2, "num_diffusion_steps": 2,
            "output_type": "latent",
        }  # fmt: skip

        def run(offload: bool) -> torch.Tensor:
            pipe = nova.from_pretrained(CHECKPOINT, num_heads=(4, 4))
            pipe.set_progress_bar_config(disable=True)
            pipe.enable_model_cpu_offload() if offload else pipe.to(device)
            return pipe("the quick brown fox", generator=seeded(), **options).frames

        close(run(True), run(False), 1e-4)
