"""Variants are compositions of parts, and learn and draw; a comparison is repeatable and honest."""

import ast
import itertools
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)

import recipes.variants
from contar._lock import locked
from contar._random import seeded
from contar.conditioning import Guidance
from contar.tokenizers import CausalVAE
from recipes import compare, nova
from recipes.compare.run import CLOCKS
from recipes.compare.run import _train as train_variant
from recipes.moving_digits import (
    DEFAULTS,
    TEXT,
    build,
    load_digits,
    load_judge,
    load_text,
    network,
)
from recipes.variants.canvas import HEADS, Canvas
from recipes.variants.digit_pixels import CANVAS, SMALL, DigitPixels
from recipes.variants.moving_clips import MovingClips
from recipes.variants.raster import Raster
from recipes.variants.whole_flow import WholeFlow

FILES = sorted(Path(recipes.variants.__file__).parent.glob("*.py"))
SHORT = {"steps": 3, "batch": 8, "samples": 20, "seeds": (0,)}


# What a composition may hold beside contar's parts, and what would be an idea of its own.
PLAIN = {"ModuleList", "Embedding", "Linear", "LayerNorm", "Parameter"}
IDEAS = {"matmul", "mm", "bmm", "einsum", "softmax", "sigmoid", "relu", "tanh"}


def own_layers(text: str) -> list[str]:
    """Return what in a file's text defines a layer: there may be one composition, of parts."""
    names: dict = {"__name__": "variant"}
    exec(compile(text, "variant", "exec"), names)
    modules = [x for x in names.values() if isinstance(x, type) and issubclass(x, torch.nn.Module)]
    modules = [module for module in modules if module.__module__ == "variant"]
    found = [f"a second module, {module.__name__}" for module in modules[1:]]
    for module in modules:  # it is trained and drawn from as a whole: no layer of another's
        whole = {"loss", "generate"} <= vars(module).keys() and "forward" not in vars(module)
        if module.__bases__ != (torch.nn.Module,) or not whole:
            found.append(f"{module.__name__}, which is no whole model")
    tree = ast.parse(text)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inits = {inner for f in functions if f.name == "__init__" for inner in ast.walk(f)}
    for node in ast.walk(tree):
        words = ast.unparse(node) if isinstance(node, ast.Import | ast.ImportFrom) else ""
        of = ast.unparse(node.value).split(".")[-1] if isinstance(node, ast.Attribute) else ""
        name = getattr(node, "attr", "")
        if (
            "torch.nn" in words or "timm" in words
            or (of == "nn" and name in PLAIN and node not in inits)
            or (of == "nn" and name not in PLAIN | {"Module", "functional"})
            or (of == "functional" and name != "pad") or name in IDEAS
            or isinstance(getattr(node, "op", None), ast.MatMult)
            or (isinstance(node, ast.ClassDef) and node not in tree.body)
        ):  # fmt: skip
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "text",
    [
        "import torch\nclass X(torch.nn.Module):\n    def forward(self, x): return x",
        "from torch import nn\nclass X(nn.Module):\n    def __init__(self): self.a = nn.GRU(2, 2)",
        "from torch.nn import Linear",
        "from torch import nn\ndef mlp(w): return nn.Sequential(nn.Linear(w, w), nn.SiLU())",
        "from torch import nn\ndef layer(w): return nn.Linear(w, w)",
        "from contar.backbones import Block\nclass Wide(Block): pass",
        "def f(w):\n    from torch import nn\n    class X(nn.Module): pass\n    return X()",
        "def look(q, k, v): return (q @ k.mT).softmax(-1) @ v",
        "from recipes.variants.masked import Masked\nclass Other(Masked): pass",
        "from recipes.variants.masked import *\n" + "".join(
            f"class {name}(nn.Module):\n    def loss(self): pass\n    def generate(self): pass\n"
            for name in "AB"
        ),
    ],
)  # fmt: skip
def test_a_layer_in_a_variants_file_is_found(text):
    assert own_layers(text)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_variant_is_one_composition_of_at_most_120_lines_and_defines_no_layer(file):
    text = file.read_text()
    assert len(text.splitlines()) <= 120
    assert own_layers(text) == []


@pytest.mark.parametrize("name", compare.IMAGES)
def test_a_variant_learns_and_draws_by_its_generator_alone(name):
    torch.manual_seed(0)
    model, task = compare.IMAGES[name](), DigitPixels()
    tokens, labels = task.batch(0, 0, 6)
    state = torch.get_rng_state()
    losses = [model.loss(tokens, labels, seeded(s)) for s in (0, 0, 1)]  # type: ignore[operator]
    assert losses[0] == losses[1] != losses[2]
    losses[0].backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    assert not missing
    model.eval()
    made = [
        model.generate(torch.arange(2), Guidance(scale), seeded(s))  # type: ignore[operator]
        for scale, s in ((1.5, 0), (1.5, 0), (1.5, 1), (1.0, 0))
    ]
    assert made[0].shape == (2, CANVAS.tokens, CANVAS.token_dim)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert not torch.equal(made[0], made[3])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """The folder of an untrained pipeline."""
    words, encoder = load_text()
    torch.manual_seed(0)
    vae = CausalVAE(widths=(8, 16, 16)).eval()
    parts = (build(network(5)).eval(), vae, FlowMatchEulerDiscreteScheduler(), encoder, words)
    folder = tmp_path_factory.mktemp("model")
    nova.NovaPipeline(*parts, defaults=DEFAULTS, text_package=TEXT).save_pretrained(folder)
    return str(folder)


def test_video_variants_learn_draw_and_are_judged(pipeline, tmp_path):
    task = MovingClips(pipeline, tmp_path / "cache", clips=6)
    judge, kinds = load_judge(), {"digit", "direction", "frechet"}
    for make in compare.VIDEOS.values():
        torch.manual_seed(0)
        model = make()
        latents, texts = task.batch(0, 0, 3)
        first, again = (model.loss(latents, texts, seeded(0)) for _ in range(2))  # type: ignore[operator]
        assert first == again
        first.backward()
        made = [
            model.eval().generate(task.asked(0, 2), Guidance(1.5), seeded(s))  # type: ignore[operator]
            for s in (0, 0, 1)
        ]
        assert made[0].shape == (2, 4, 5, 8, 8)
        assert torch.equal(made[0], made[1])
        assert not torch.equal(made[0], made[2])
        assert set(task.judged(made[0], judge)) == kinds
        assert task.sheet(made[0]).shape == (2, 3, 5, 64, 64)


def test_a_causal_variants_conditions_are_the_same_with_the_cache_and_without():
    torch.manual_seed(0)
    model = Raster(CANVAS, HEADS["energy"])
    tokens, labels = torch.randn(2, CANVAS.tokens, CANVAS.token_dim), torch.tensor([3, 7])
    whole = model.conditions(tokens[:, :-1], 0, labels)
    cache = model.tower.allocate_cache(2, 4 + CANVAS.tokens)
    parts = [model.conditions(tokens[:, :0], 0, labels, cache)]
    parts += [
        model.conditions(tokens[:, i - 1 : i], i, labels, cache) for i in range(1, CANVAS.tokens)
    ]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-5)


def test_the_checkerboards_second_half_comes_last():
    torch.manual_seed(0)
    model = compare.IMAGES["checkerboard-flow"]()
    order = model.order(3, CANVAS.tokens, generator=seeded(0))  # type: ignore[operator]
    rows, columns = order // CANVAS.grid[1], order % CANVAS.grid[1]
    assert ((rows + columns) % 2)[:, :8].sum() == 0
    assert sum(model.sizes[:6]) == 8  # type: ignore[index]
    assert len(model.sizes) == 8  # type: ignore[arg-type]


def test_batches_follow_from_seed_and_step_and_hide_a_tenth_of_the_labels():
    task = DigitPixels()
    first, again, other = (task.batch(*key, 500) for key in ((0, 3), (0, 3), (0, 4)))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert 25 <= (first[1] == CANVAS.classes).sum() <= 80
    assert first[0].min() >= -1
    assert first[0].max() <= 1


def test_small_digits_are_the_same_handwriting_in_fewer_values_and_are_read_as_well(refuses):
    small, judge, digits = DigitPixels(SMALL), load_judge(), load_digits("validation")
    tokens, labels = small.batch(0, 3, 50)
    assert tokens.shape == (50, 16, 9)
    assert torch.equal(labels, DigitPixels().batch(0, 3, 50)[1])
    pictures, right = digits.pictures[::2], digits.labels[::2]
    large = DigitPixels()
    found = [
        (judge.digits(task.frames(task.tokens(pictures))) == right).float().mean()
        for task in (large, small)
    ]
    assert found[1] > found[0] - 0.02
    with refuses("canvas"):
        DigitPixels(Canvas((4, 4), 4, 10))


def test_a_comparison_writes_every_run_and_goes_on_where_it_ended(tmp_path, refuses):
    two = compare.Comparison(variants=("masked-energy", "whole-flow"), **SHORT)  # type: ignore[arg-type]
    runs = compare.compare(two, tmp_path)
    assert [(run.variant, run.steps, run.diverged) for run in runs] == [
        ("masked-energy", 3, False), ("whole-flow", 3, False)
    ]  # fmt: skip
    assert all(run.gigaflops > 0 and run.seconds > 0 and run.parameters > 1e5 for run in runs)
    assert (tmp_path / "compare.png").stat().st_size > 5000
    table = (tmp_path / "table.md").read_text()
    assert all(name in table for name in ("masked-energy", "whole-flow", "digit right, %"))

    file = tmp_path / "runs.json"
    content = json.loads(file.read_text())
    content["runs"] = content["runs"][:1]
    file.write_text(json.dumps(content))
    again = compare.compare(two, tmp_path)
    assert again[0] == runs[0]  # taken as it was
    assert again[1].losses == runs[1].losses  # and repeated
    assert again[1].figures == runs[1].figures
    with refuses("out", "same comparison"):
        compare.compare(compare.Comparison(variants=("whole-flow",)), tmp_path)


def test_the_pages_figures_are_those_of_its_runs():
    root = Path(__file__).parents[2]
    runs = compare.read_runs(root / "benchmarks" / "results" / "variants.json")
    page = (root / "docs" / "compare.md").read_text(encoding="utf-8")
    assert compare.table(runs) in page
    for longer in ("masked-flow-5-minutes", "masked-ddpm-13-minutes"):
        (run,) = compare.read_runs(root / "benchmarks" / "results" / f"{longer}.json")
        digit, distance = run.figures["digit"], run.figures["frechet"]
        assert digit >= 0.9
        assert f"gets {digit:.1%}" in page
        assert f"at {distance:.2f}" in page or f"a distance of {distance:.2f}" in page


LOSSES = {
    "loss": lambda self, *rest: self.out.bias.sum() * float("nan"),
    "gradient": lambda self, *rest: (self.out.bias.sum() * 0).sqrt(),  # 0, of slope infinity
}


@pytest.mark.parametrize("what", LOSSES)
def test_a_run_whose_loss_or_weights_are_no_numbers_is_counted_as_diverged(
    tmp_path, monkeypatch, what
):
    monkeypatch.setattr(WholeFlow, "loss", LOSSES[what])
    steps = {"loss": 3, "gradient": 1}[what]  # the former ends at once
    one = compare.Comparison(variants=("whole-flow",), **{**SHORT, "steps": steps})  # type: ignore[arg-type]
    (run,) = compare.compare(one, tmp_path)
    assert run.diverged
    assert run.steps == 1
    assert "1 of 1" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("variants", {"variants": ("raster",)}),
        ("variants", {"variants": ("nova",)}),
        ("task", {"task": "sounds"}),
        ("clock", {"clock": "sun"}),
        ("seeds", {"seeds": ()}),
        ("seeds", {"seeds": (-1,)}),
        ("minutes", {"minutes": 0.0}),
        ("minutes", {"minutes": 3.0, "steps": 1000}),
        ("steps", {"steps": 0}),
        ("batch", {"batch": 0}),
        ("samples", {"samples": 0}),
        ("samples", {"samples": 10}),
        ("samples", {"samples": 25}),
        ("guidance", {"guidance": -1.0}),
    ],
)
def test_a_comparison_refuses_what_is_outside_its_range(name, options, refuses):
    with refuses(name):
        compare.Comparison(**options)


def test_minutes_are_those_of_the_clock_that_is_asked_for(monkeypatch):
    seconds = itertools.count(0, 30)
    monkeypatch.setitem(CLOCKS, "processor", lambda: float(next(seconds)))
    one = compare.Comparison(minutes=2.0, clock="processor", batch=4)
    model = Raster(CANVAS, HEADS["mixture"])
    losses = train_variant(model, "raster-mixture", 0, one, DigitPixels())
    assert len(losses) == 4  # the clock is read before the first and after each


def test_the_command_trains_for_the_steps_that_it_is_told(main, tmp_path, capsys):
    short = "--variants raster-flow --steps 2 --batch 4 --samples 20 --seeds 5"
    main("compare", "--out", str(tmp_path), *short.split())
    (run,) = compare.read_runs(tmp_path / "runs.json")
    assert (run.variant, run.seed, run.steps) == ("raster-flow", 5, 2)
    assert "| raster-flow |" in capsys.readouterr().out


def test_the_command_refuses_a_result_that_is_no_folder_of_the_same_comparison(main, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "runs.json").write_text("{}")
    for out in (tmp_path / "file", tmp_path):
        with pytest.raises(SystemExit, match=f"out: got '{out}', allowed"):
            main("compare", "--out", str(out))
    with pytest.raises(SystemExit, match="variants: got 'raster', allowed: one of"):
        main("compare", "--out", str(tmp_path / "new"), "--variants", "raster")
    assert not (tmp_path / "new").exists()


def test_a_comparison_keeps_to_its_own_files_and_alone_in_its_folder(tmp_path, refuses):
    one = compare.Comparison(variants=("whole-flow",), **SHORT)  # type: ignore[arg-type]
    with locked(tmp_path), refuses("out", "another run goes on"):
        compare.compare(one, tmp_path)
    (tmp_path / "table.md").write_text("mine")
    with refuses("out", "its own table.md"):
        compare.compare(one, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["table.md"]
    settings = json.loads(json.dumps({**asdict(one), "judge": load_judge().fingerprint()}))
    for runs in (3, [3], [{"variant": "whole-flow"}], None):
        (tmp_path / "runs.json").write_text(json.dumps({"settings": settings, "runs": runs}))
        with refuses("runs.json", "the runs of a comparison"):
            compare.compare(one, tmp_path)
