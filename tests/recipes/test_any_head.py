"""Any head in any recipe: it learns, draws from its generator, goes token by token, comes back."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_mar import PLAN, VALUES, tiny_mar
from tiny_nova import CONFIGS, texts  # type: ignore[import-not-found]
from torch import Tensor, nn

from contar.heads import Noise, TokenHead, head_names, make_head, register_head, registry
from recipes import mar, nova


class ToyHead(nn.Module):
    """A Gaussian around a linear mean, of one deviation."""

    def __init__(self, token_dim: int, cond_dim: int, *, deviation: float = 0.1) -> None:
        super().__init__()
        self.token_dim, self.cond_dim, self.deviation = token_dim, cond_dim, deviation
        self.mean = nn.Linear(cond_dim, token_dim)

    def loss(
        self, target: Tensor, cond: Tensor, *, repeats: int = 1, generator: Any = None
    ) -> Tensor:
        return (self.mean(cond) - target).square().mean(-1)[None]

    def sample(
        self, cond: Tensor, *, uncond: Any = None, guidance: Any = None, temperature: float = 1.0,
        noise: Any = None, steps: int | None = None,
    ) -> Tensor:  # fmt: skip
        noise = noise if isinstance(noise, Noise) else Noise(noise, cond.device)
        mean = self.mean(cond)
        if guidance is not None and guidance.scale > 1:
            mean = guidance.combine(mean, self.mean(uncond))
        return mean.float() + temperature * self.deviation * noise.normal(*mean.shape)


register_head("toy", ToyHead)
SIZES: dict[str, dict[str, Any]] = {
    "diffusion": {"width": 16, "depth": 1, "steps": 4},
    "flow": {"width": 16, "depth": 1, "steps": 4},
    "mixture": {"components": 3, "width": 16},
    "energy": {"width": 16, "depth": 1},
    "mean_flow": {"width": 16, "depth": 1, "steps": 2},
    "flow_map": {"width": 16, "depth": 1, "steps": 2},
    "toy": {"deviation": 0.2},
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def config_of(recipe: str, head: dict[str, Any]) -> Any:
    if recipe == "nova":
        return replace(CONFIGS["absolute, adapter"], head=head)
    return replace(tiny_mar().sizes, head=head)


def build(recipe: str, config: Any, **options: Any) -> Any:
    torch.manual_seed(0)
    return {"nova": nova, "mar": mar}[recipe].build(config, **options).eval()


GUIDANCE = nova.Guidance(2.0)


def generate(recipe: str, model: Any, rows: slice, *, guidance: nova.Guidance = GUIDANCE) -> Tensor:
    generators: Any = [seeded(seed) for seed in (5, 6)][rows]
    if recipe == "mar":
        plan = mar.GenerationPlan(sets=PLAN.sets, rounding="floor", guidance=guidance)
        return mar.generate(model, torch.tensor([0, 2])[rows], plan, generator=generators)
    plan = nova.GenerationPlan(frames=2, sets=3, guidance=guidance)
    return nova.generate(model, texts(2, 0)[rows], plan, generator=generators)


def training_loss(recipe: str, model: Any, seed: int) -> Tensor:
    data = seeded(1)  # the same clean samples in every step
    if recipe == "mar":
        latents = 0.3 * torch.randn(4, 2, 4, 8, generator=data)
        labels = torch.tensor([0, 1, 2, 0])
        return mar.training_losses(model, latents, labels, generator=seeded(seed)).total
    latents = 0.3 * torch.randn(4, 2, 2, 4, 4, generator=data)
    return nova.training_losses(model, latents, texts(4, 0), generator=seeded(seed)).total


def named(name: str, recipe: str) -> Any:
    return build(recipe, config_of(recipe, {"name": name, **SIZES[name]}))


def own(recipe: str) -> Any:
    """Return a model whose head is an object that its config does not name."""
    config = config_of(recipe, {"name": "toy", **SIZES["toy"]})
    return build(recipe, config, head=ToyHead(*dims(recipe, config), deviation=0.2))


def dims(recipe: str, config: Any) -> tuple[int, int]:
    """Return the values of a token and of a condition."""
    values = VALUES if recipe == "mar" else config.patch**2 * config.channels
    return values, config.decoder.width


MAKERS: dict[str, Callable[[str], Any]] = {
    **{name: (lambda recipe, name=name: named(name, recipe)) for name in SIZES},
    "an object": own,
}


@pytest.mark.parametrize("recipe", ["nova", "mar"])
@pytest.mark.parametrize("maker", MAKERS)
def test_a_head_learns_draws_and_comes_back_in_a_recipe(recipe, maker, tmp_path):
    model = MAKERS[maker](recipe)
    assert isinstance(model.head, TokenHead)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    before = sum(float(training_loss(recipe, model, seed).detach()) for seed in range(100, 108))
    for step in range(30):
        optimizer.zero_grad()
        training_loss(recipe, model, step).backward()
        optimizer.step()
    after = sum(float(training_loss(recipe, model, seed).detach()) for seed in range(100, 108))
    assert after < before

    both = generate(recipe, model, slice(0, 2))
    assert both.isfinite().all()
    assert torch.equal(both, generate(recipe, model, slice(0, 2)))  # equal seeds
    assert not torch.allclose(both[0], both[1])
    alone = generate(recipe, model, slice(1, 2))  # neighbours do not matter
    torch.testing.assert_close(alone, both[1:], rtol=1e-4, atol=1e-4)

    model.save_pretrained(tmp_path / "saved")
    loaded = type(model).from_pretrained(tmp_path / "saved").eval()
    assert loaded.sizes == model.sizes
    assert all(torch.equal(x, loaded.state_dict()[n]) for n, x in model.state_dict().items())
    # A file's weights may lie in memory where a kernel sums in another order.
    again = generate(recipe, loaded, slice(0, 2))
    torch.testing.assert_close(again, both, rtol=1e-4, atol=1e-4)


class Unguided(ToyHead):
    def check_sample(self, guidance: Any, temperature: float, steps: int | None) -> None:
        if guidance.scale > 1:
            raise ValueError(f"guidance.scale: got {guidance.scale}, allowed: 1")

    def sample(self, *given: Any, **options: Any) -> Tensor:
        raise AssertionError("drawn")


@pytest.mark.parametrize("recipe", ["nova", "mar"])
def test_guidance_of_the_first_sets_alone_is_shown_to_the_head_before_it_draws(recipe, refuses):
    config = config_of(recipe, {"name": "toy"})
    model = build(recipe, config, head=Unguided(*dims(recipe, config)))
    with refuses("guidance.scale", "3.0"):
        generate(recipe, model, slice(0, 2), guidance=nova.Guidance(3.0, interval=(0.0, 0.5)))


def test_every_named_head_is_tried():
    assert set(SIZES) == set(head_names())


@pytest.mark.parametrize("recipe", ["nova", "mar"])
def test_an_object_that_is_no_head_or_of_other_sizes_is_refused(recipe, refuses):
    config = config_of(recipe, {"name": "toy"})
    with refuses("head", "Linear"):
        build(recipe, config, head=nn.Linear(2, 2))
    with refuses("head.token_dim", "77"):
        build(recipe, config, head=ToyHead(77, config.decoder.width))


@pytest.mark.parametrize("recipe", ["nova", "mar"])
def test_a_model_whose_config_names_another_head_is_not_saved(recipe, tmp_path, refuses):
    config = config_of(recipe, {"name": "energy", **SIZES["energy"]})
    model = build(recipe, config, head=ToyHead(*dims(recipe, config)))
    with refuses("head", "ToyHead", "EnergyHead"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    ("name", "other", "says"),
    [
        ("flow", {"width": 8}, ("head.network.token.weight", "(8, 2)", "(16, 2)")),
        ("flow", {"depth": 2}, ("head.network.blocks.1.", "None")),
        ("flow", {"steps": 5}, ("head.steps", "5", "4")),
        ("flow", {"prediction": "sample"}, ("head.prediction", "'sample'", "None")),
        ("flow", {"logit": (0.5, 1.0)}, ("head.logit", "[0.5, 1.0]", "[0.0, 1.0]")),
        ("flow", {"solver": "straight"}, ("head", "another scheduler or solver", "FlowMatch")),
        ("mixture", {"components": 2}, ("head.", "as of the head")),
        ("toy", {"deviation": 0.5}, ("head.deviation", "0.5", "0.2")),
    ],
)
def test_a_head_of_other_sizes_than_its_config_names_is_not_saved(
    name, other, says, tmp_path, refuses
):
    config = config_of("nova", {"name": name, **SIZES[name]})
    head = make_head({"name": name, **SIZES[name], **other}, *dims("nova", config))
    with refuses(*says):
        build("nova", config, head=head).save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("name", ["mixture", "mean_flow", "toy"])
def test_the_official_plan_of_mar_takes_a_heads_own_steps(name):
    model = named(name, "mar")
    plan = replace(mar.PLAN, sets=3)
    made = mar.generate(model, torch.tensor([0, 2]), plan, generator=seeded())
    assert made.isfinite().all()


def test_a_head_of_any_sizes_is_registered_and_again_by_the_same_function():
    def make(token_dim: int, cond_dim: int, **sizes: Any) -> ToyHead:
        return ToyHead(token_dim, cond_dim, **sizes)

    register_head("any sizes", make)
    register_head("any sizes", make)
    try:
        head: Any = make_head({"name": "any sizes", "deviation": 0.5}, 2, 3)
        assert head.deviation == 0.5
    finally:
        registry._HEADS.pop("any sizes")


def test_what_only_a_diffusion_takes_is_refused_for_another_head(refuses):
    model, text = named("mixture", "nova"), texts(1, 0)
    plan = nova.GenerationPlan(frames=1, sets=2)
    with refuses("scheduler"):
        nova.generate(model, text, replace(plan, scheduler={"_class_name": "DDPMScheduler"}))
    with refuses("flow_shift"):
        nova.generate(model, text, replace(plan, flow_shift=2.0))
    with refuses("plan.diffusion_steps", "3", "in one pass"):
        nova.generate(model, text, replace(plan, diffusion_steps=3))
    with refuses("noise"):
        noise = torch.zeros(1, 1, 2)
        nova.training_losses(model, torch.zeros(1, 2, 1, 4, 4), text, repeats=1, noise=noise)


def test_weights_and_sizes_of_version_0_1_are_read_as_they_were_meant(tmp_path):
    model = build("nova", CONFIGS["absolute"])
    model.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    head = config["sizes"].pop("head")
    config["sizes"] |= {"head_depth": head["depth"], "head_width": head["width"]}
    config["sizes"]["scheduler"] = {
        "_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0
    }  # fmt: skip
    file.write_text(json.dumps(config))
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    state = {k.replace("head.network.", "head."): v for k, v in load_file(weights).items()}
    save_file(state, weights, {"format": "pt"})
    loaded = nova.Nova.from_pretrained(tmp_path).eval()
    rows = slice(0, 2)
    assert torch.equal(generate("nova", loaded, rows), generate("nova", model, rows))
