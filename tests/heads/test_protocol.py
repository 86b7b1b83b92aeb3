"""Laws of every token head: tokens by themselves, seeds, shapes, gradients, guidance, refusals."""

from typing import Any

import pytest
import torch
from heads import HEADS, Given, make

from contar.conditioning import Guidance
from contar.heads import EnergyHead, Noise, TokenHead, diffusion_mlp, make_head

VALUES, COND = 3, 6
kinds = pytest.mark.parametrize("kind", HEADS)


def randn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    # Kernels round at 6e-8 and sum in an order of their own for each shape.
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@kinds
def test_a_head_keeps_the_protocol_and_knows_its_sizes(kind):
    head = make(kind, VALUES, COND)
    assert isinstance(head, TokenHead)
    assert (head.token_dim, head.cond_dim) == (VALUES, COND)


@kinds
def test_a_token_depends_on_its_own_condition_alone(kind):
    head, cond = make(kind, VALUES, COND), randn(0, 2, 5, COND)
    other = cond.clone()
    other[1, 3] += 1
    before, after = (head.sample(c, noise=seeded()) for c in (cond, other))
    moved = torch.zeros(2, 5, dtype=torch.bool)
    moved[1, 3] = True
    close(after[~moved], before[~moved])
    assert (after[moved] - before[moved]).abs().max() > 1e-4


@kinds
def test_a_loss_depends_on_its_own_token_alone(kind):
    head, target, cond = make(kind, VALUES, COND), randn(1, 5, VALUES), randn(0, 5, COND)
    other = target.clone()
    other[3] += 1
    before, after = (head.loss(x, cond, generator=seeded()) for x in (target, other))
    kept = torch.arange(5) != 3
    close(after[:, kept], before[:, kept])
    assert (after[:, 3] - before[:, 3]).abs().max() > 1e-6


@kinds
def test_equal_seeds_give_equal_tokens_and_losses_and_other_seeds_others(kind):
    head, cond = make(kind, VALUES, COND), randn(0, 2, 4, COND)
    first, again, other = (head.sample(cond, noise=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    state = torch.get_rng_state()
    head.sample(cond, noise=seeded())
    tokens = (randn(1, 8, VALUES), cond.flatten(0, 1))
    first, again, other = (head.loss(*tokens, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (kind == "mixture")  # whose loss draws nothing
    assert torch.equal(torch.get_rng_state(), state)


def test_a_source_without_a_generator_is_freshly_seeded():
    state = torch.get_rng_state()
    for draw in (Noise.normal, Noise.uniform):
        assert not torch.equal(*(draw(Noise(None), 2, 3) for _ in range(2)))
    assert torch.equal(torch.get_rng_state(), state)


@kinds
def test_with_a_generator_each_a_sample_does_not_depend_on_its_neighbours(kind):
    head, pair = make(kind, VALUES, COND), randn(0, 2, 3, 4, COND)

    def sample(scale: float, *rows: int) -> torch.Tensor:
        cond, uncond = pair[:, rows]
        noise = [seeded(row) for row in rows]
        return head.sample(cond, uncond=uncond, guidance=Guidance(scale), noise=noise)

    for scale in (1.0, 2.0):
        whole = sample(scale, 0, 1, 2)
        for i in range(3):
            close(sample(scale, i), whole[i : i + 1])


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_tokens_and_gradients_have_their_shapes_and_are_finite(kind, dtype):
    head = make(kind, VALUES, COND).to(dtype)
    cond = randn(0, 7, COND).to(dtype).requires_grad_()
    losses = head.loss(randn(1, 7, VALUES), cond, repeats=3, generator=seeded())
    assert losses.shape == ((1 if kind == "mixture" else 3), 7)
    assert losses.dtype == torch.float32
    losses.mean().backward()
    gradients = [cond.grad, *(p.grad for p in head.parameters())]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert any(g is not None and g.abs().max() > 0 for g in gradients[1:])
    tokens = head.sample(cond.detach()[None], noise=seeded())
    assert tokens.shape == (1, 7, VALUES)
    assert tokens.dtype == torch.float32
    assert tokens.isfinite().all()


@kinds
def test_guidance_1_is_none_and_equal_conditions_leave_nothing_to_guide(kind):
    head, cond, uncond = make(kind, VALUES, COND), randn(0, 2, 4, COND), randn(1, 2, 4, COND)
    plain = head.sample(cond, noise=seeded())
    close(head.sample(cond, uncond=uncond, guidance=Guidance(1.0), noise=seeded()), plain)
    guided = head.sample(cond, uncond=uncond, guidance=Guidance(3.0), noise=seeded())
    assert not torch.allclose(guided, plain)
    if kind != "mixture":  # which draws candidates there
        same = head.sample(cond, uncond=cond, guidance=Guidance(3.0), noise=seeded())
        close(same, plain)


def test_guidance_goes_on_from_the_unconditional_past_the_conditional():
    cond, uncond, three = randn(0, 2, 4, COND), randn(1, 2, 4, COND), Guidance(3.0)
    energy: Any = make("energy", VALUES, COND)
    guided = energy.sample(cond, uncond=uncond, guidance=three, noise=seeded())
    close(guided, energy.sample(uncond + 3 * (cond - uncond), noise=seeded()))
    for kind in ("mean_flow", "flow_map"):
        head: Any = make(kind, VALUES, COND)
        head.steps = 1  # then a draw is the noise and one velocity
        guided = head.sample(cond, uncond=uncond, guidance=three, noise=seeded())
        with_it, without = (head.sample(c, noise=seeded()) for c in (cond, uncond))
        close(guided, without + 3 * (with_it - without))


def test_a_mean_flows_weight_is_that_of_its_error_and_is_not_learned_from():
    head, target, cond = make("mean_flow", VALUES, COND), randn(1, 5, VALUES), randn(0, 5, COND)
    error = head.loss(target, cond, generator=seeded())
    head.power = 1.0
    weighted = head.loss(target, cond, generator=seeded())
    wanted = error / (error.detach() + 1e-3)
    close(weighted, wanted)
    weight = head.network.out.weight
    close(*(torch.autograd.grad(loss.sum(), weight)[0] for loss in (weighted, wanted)))


@torch.no_grad()
def test_a_mean_flow_learns_the_velocity_less_the_slope_along_its_own_path():
    head, target, cond = make("mean_flow", VALUES, COND), randn(1, 64, VALUES), randn(0, 64, COND)
    head.spans, draws = 0.5, seeded()
    noise, times = (torch.empty(s).normal_(generator=draws) for s in ((1, 64, VALUES), (2, 1, 64)))
    evenly = torch.empty(1, 1, 64).uniform_(generator=draws) < 0.5
    even = torch.empty(2, 1, 64).uniform_(generator=draws)
    times = torch.where(evenly, even, (times - 0.4).sigmoid())
    t, r = times.sort(0, descending=True).values
    r = torch.where(torch.empty(1, 64).uniform_(generator=draws) < head.spans, r, t)
    condition = head.network.condition(cond)[None]
    x = target + t[..., None] * (noise - target)
    own = head.velocity(x, t, t, condition)  # not noise - target, which is of this token alone

    def u(later):
        return head.velocity(x + later * own, r, t + later, condition)

    step = 5e-3
    curve = (t - r)[..., None] * (u(step) - u(-step)) / (2 * step)
    wanted = (u(0) - (noise - target - curve)).square().mean(-1)
    found = head.loss(target, cond, generator=seeded())
    assert (found - wanted).abs().max() < 0.01 * curve.abs().max()  # of differences, 5e-3 apart
    assert (found - (u(0) - (noise - target)).square().mean(-1)).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["energy", "flow", "mean_flow", "flow_map"])
def test_at_temperature_0_nothing_is_left_to_draw(kind):
    head, cond = make(kind, VALUES, COND), randn(0, 2, 4, COND)
    close(*(head.sample(cond, temperature=0.0, noise=seeded(s)) for s in (1, 2)))


def test_temperature_scales_the_deviations_of_a_mixture_and_the_noise_of_a_stochastic_solver():
    cond = randn(0, 1, 1, COND).expand(1, 4000, -1)
    mixture = make("mixture", VALUES, COND)
    drawn = mixture.sample(cond, temperature=0.0, noise=seeded())[0]
    assert len(drawn.unique(dim=0)) <= mixture.components  # the means themselves
    ddpm = make("ddpm", VALUES, COND)
    warm, cold = (ddpm.sample(cond[:, :4], temperature=t, noise=seeded()) for t in (1.0, 0.0))
    assert not torch.allclose(warm, cold)


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("cond", {"cond": randn(0, 2, COND)}),
    ("cond", {"cond": randn(0, 2, 4, COND + 1)}),
    ("uncond", {"guidance": Guidance(2.0)}),
    ("uncond", {"guidance": Guidance(2.0), "uncond": randn(0, 2, 3, COND)}),
    ("guidance", {"guidance": 2.0}),
    ("guidance.start", {"guidance": Guidance(2.0, start=1.0), "uncond": randn(0, 2, 4, COND)}),
    (
        "guidance.interval",
        {"guidance": Guidance(2.0, interval=(0.0, 0.5)), "uncond": randn(0, 2, 4, COND)},
    ),
    ("temperature", {"temperature": -1.0}),
    ("temperature", {"temperature": float("nan")}),
    ("noise", {"noise": [seeded()]}),
]


@kinds
@pytest.mark.parametrize(("argument", "changes"), REFUSED)
def test_a_draw_refuses_what_does_not_fit(kind, argument, changes, refuses):
    options = {"cond": randn(0, 2, 4, COND), "noise": seeded(), **changes}
    with refuses(argument):
        make(kind, VALUES, COND).sample(options.pop("cond"), **options)


@kinds
@pytest.mark.parametrize(
    ("argument", "changes"),
    [
        ("target", {"target": randn(0, 4, VALUES + 1)}),
        ("cond", {"cond": randn(0, 3, COND)}),
        ("cond", {"cond": randn(0, 4, COND + 1)}),
        ("repeats", {"repeats": 0}),
        ("generator", {"generator": [seeded()]}),
    ],
)
def test_a_loss_refuses_what_does_not_fit(kind, argument, changes, refuses):
    options = {"target": randn(0, 4, VALUES), "cond": randn(0, 4, COND), "generator": seeded()}
    options |= changes
    with refuses(argument):
        make(kind, VALUES, COND).loss(options.pop("target"), options.pop("cond"), **options)


@kinds
def test_no_tokens_are_drawn_for_no_conditions(kind):
    head = make(kind, VALUES, COND)
    assert head.sample(torch.zeros(2, 0, COND), noise=seeded()).shape == (2, 0, VALUES)


@pytest.mark.parametrize("kind", ["mixture", "energy", "mean_flow", "flow_map"])
def test_guidance_of_timesteps_or_frames_is_refused_where_there_are_none(kind, refuses):
    head, cond = make(kind, VALUES, COND), randn(0, 2, 4, COND)
    for field, guidance in (
        ("guidance.truncation", Guidance(2.0, truncation=100.0)),
        ("guidance.ceiling", Guidance(2.0, ceiling=100.0)),
        ("guidance.renorm", Guidance(2.0, renorm=0.5, renorm_over="frame")),
    ):
        with refuses(field):
            head.sample(cond, uncond=cond, guidance=guidance, noise=seeded())


@pytest.mark.parametrize(
    ("kind", "argument", "sizes"),
    [
        ("mixture", "components", {"components": 0}),
        ("mixture", "least", {"least": 0.0}),
        ("mixture", "candidates", {"candidates": 0}),
        ("mixture", "width", {"width": -1}),
        ("energy", "alpha", {"alpha": 2.0, "width": 8, "depth": 1}),
        ("energy", "alpha", {"alpha": 0.0, "width": 8, "depth": 1}),
        ("energy", "noise", {"noise": 0, "width": 8, "depth": 1}),
        ("energy", "depth", {"width": 8, "depth": 0}),
        ("energy", "train_temperature", {"train_temperature": -1.0, "width": 8, "depth": 1}),
        ("energy", "tempered", {"tempered": "z", "width": 8, "depth": 1}),
        ("mean_flow", "steps", {"steps": 0, "width": 8, "depth": 1}),
        ("mean_flow", "spans", {"spans": 1.5, "width": 8, "depth": 1}),
        ("mean_flow", "uniform", {"uniform": 1.5, "width": 8, "depth": 1}),
        ("mean_flow", "time_scale", {"time_scale": 0.0, "width": 8, "depth": 1}),
        ("mean_flow", "power", {"power": -1.0, "width": 8, "depth": 1}),
        ("flow_map", "steps", {"steps": 0, "width": 8, "depth": 1}),
        ("flow_map", "share", {"share": 1.5, "width": 8, "depth": 1}),
        ("flow_map", "diagonal", {"diagonal": -0.1, "width": 8, "depth": 1}),
        ("flow_map", "diagonal", {"diagonal": 1.1, "width": 8, "depth": 1}),
        ("flow_map", "share", {"share": 1.1, "width": 8, "depth": 1}),
        ("flow_map", "draws", {"draws": "beta", "width": 8, "depth": 1}),
        ("flow_map", "logit", {"logit": (0.0, -1.0), "width": 8, "depth": 1}),
        ("flow_map", "weighting", {"weighting": -1, "width": 8, "depth": 1}),
        ("flow_map", "time_scale", {"time_scale": 0.0, "width": 8, "depth": 1}),
        ("flow_map", "width", {"width": 1, "depth": 1, "time_norm": "deviation"}),
    ],
)
def test_sizes_outside_their_range_are_refused(kind, argument, sizes, refuses):
    with refuses(argument):
        make_head({"name": kind, **sizes}, VALUES, COND)


@pytest.mark.parametrize("truncation", [0.0, 400.0])
@pytest.mark.parametrize("kind", ["ddpm", "flow"])
def test_modulations_made_for_many_steps_equal_those_made_for_each(kind, truncation, monkeypatch):
    head, cond, uncond = make(kind, VALUES, COND), randn(0, 2, 4, COND), randn(1, 2, 4, COND)
    guidance = Guidance(3.0, truncation=truncation)
    drawn = []
    for rows in (1, 40, 1024):  # one step at a time, a few, all of them
        monkeypatch.setattr("contar.heads.diffusion_mlp._ROWS", rows)
        drawn.append(head.sample(cond, uncond=uncond, guidance=guidance, noise=seeded()))
    close(drawn[1], drawn[0])
    close(drawn[2], drawn[0])


def test_a_diffusion_head_compiles_what_it_calls_its_network(monkeypatch):
    head, asked = make("flow", VALUES, COND), []
    monkeypatch.setattr(
        type(head.network), "compile", lambda self, **options: asked.append((self, options))
    )
    head.compile(backend="eager")
    assert asked == [(head.network, {"backend": "eager"})]


def test_an_energy_heads_temperature_scales_the_noise_or_the_shifts_of_its_blocks():
    cond, noise = randn(0, 5, COND), randn(1, 5, 32)
    head: Any = make("energy", VALUES, COND)
    close(head(cond, noise, 0.5), head(cond, 0.5 * noise))
    head.tempered = "shifts"
    tempered = head(cond, noise, 0.5)
    for norm in head.norms:  # shifts are the second third of a block's modulation
        for weight in norm.proj.parameters():
            weight.data.chunk(3)[1].mul_(0.5)
    close(tempered, head(cond, noise))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5])
def test_an_energy_heads_loss_is_the_energy_score_of_two_draws(alpha):
    head, target, cond = make("energy", VALUES, COND), randn(1, 5, VALUES), randn(0, 5, COND)
    head.alpha = alpha
    noise = torch.empty(2, 3, 5, 32).uniform_(generator=seeded()) - 0.5
    one, two = head(cond.expand(2, 3, 5, -1), noise)
    pairs = ((one, target), (two, target), (one, two))
    first, second, apart = ((a - b).norm(dim=-1) ** alpha for a, b in pairs)
    found = head.loss(target, cond, repeats=3, generator=seeded())
    close(found, first + second - apart)


def test_an_energy_heads_training_temperature_weighs_how_far_draws_lie_apart():
    target, cond, losses = randn(1, 5, VALUES), randn(0, 5, COND), []
    for temperature in (0.0, 1.0, 2.0):
        torch.manual_seed(0)
        head = EnergyHead(VALUES, COND, width=8, depth=1, train_temperature=temperature)
        losses.append(head.loss(target, cond, generator=seeded()))
    close(losses[0] - losses[1], losses[1] - losses[2])
    assert (losses[0] > losses[1]).all()


def test_a_flows_temperature_scales_the_noise_that_it_starts_from():
    head, cond = make("flow", VALUES, COND), randn(0, 2, 4, COND)
    noise = randn(1, 2, 4, VALUES)
    close(head.sample(cond, noise=Given(noise), temperature=0.7),
          head.sample(cond, noise=Given(0.7 * noise)))  # fmt: skip


@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
@pytest.mark.parametrize("solver", ["scheduler", "straight"])
def test_what_a_flow_predicts_changes_no_draw_where_it_knows_the_tokens(prediction, solver):
    # All tokens are at one place, so that each prediction is known at every noisy token.
    from contar.heads import make_head

    place = torch.tensor([0.5, -1.0, 2.0])
    head: Any = make_head(
        {"name": "flow", "width": 8, "depth": 1, "prediction": prediction, "solver": solver,
         "steps": 7}, VALUES, COND,
    )  # fmt: skip
    sigmas = iter(step / 1000 for step in head.table().timestep)

    def denoise(x: torch.Tensor, modulations: Any) -> torch.Tensor:
        sigma = next(sigmas)
        eps = (x - (1 - sigma) * place) / sigma
        return place.expand_as(x) if prediction == "sample" else (1 - sigma) * eps - sigma * place

    head.network.denoise = denoise
    drawn = head.sample(randn(0, 2, 4, COND), noise=seeded())
    torch.testing.assert_close(drawn, place.expand(2, 4, -1), atol=2e-2, rtol=0)


def test_weights_weigh_a_tokens_values():
    from contar.heads import make_head

    sizes: Any = {"name": "flow", "width": 8, "depth": 1}
    target, cond = randn(1, 5, VALUES), randn(0, 5, COND)
    noise, index = randn(2, 1, 5, VALUES), torch.arange(5)[None] * 200
    losses = []
    for weights in ([1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], None):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            head: Any = make_head({**sizes, "weights": weights}, VALUES, COND)
        losses.append(head.loss(target, cond, noise=noise, index=index))
    close(losses[0] + losses[1] + losses[2], losses[3])
    assert torch.equal(losses[3], losses[4])
    assert not torch.allclose(losses[0], losses[1])


@kinds
def test_a_head_learns_and_draws_under_autocast(kind):
    head, target, cond = make(kind, VALUES, COND), randn(1, 50, VALUES), randn(0, 50, COND)
    plain = head.loss(target, cond, repeats=4, generator=seeded())
    with torch.autocast("cpu", torch.bfloat16):
        loss = head.loss(target, cond, repeats=4, generator=seeded())
        drawn = head.sample(cond[None], noise=seeded())
    loss.mean().backward()
    gradients = [p.grad for p in head.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(grad.isfinite().all()) for grad in gradients)
    assert bool(drawn.isfinite().all())
    torch.testing.assert_close(loss.float().mean(), plain.mean(), rtol=0.05, atol=0.05)


def uniform(share: torch.Tensor) -> torch.Tensor:
    return share


def cosine(share: torch.Tensor) -> torch.Tensor:
    return (share / (1 - share)).atan() * (2 / torch.pi)


def logit_normal(mean: float, deviation: float) -> Any:
    return lambda share: torch.special.ndtr((share.logit() - mean) / deviation)


FLOW: Any = {"name": "flow", "width": 8, "depth": 1}
PREDICTS_TOKENS = {"prediction": "sample", "timesteps": "signal"}


@pytest.mark.parametrize(
    ("sizes", "below"),
    [
        ({**FLOW, "draws": "uniform"}, uniform),
        ({**FLOW, "draws": "cosine"}, cosine),
        ({**FLOW, "draws": "logit_normal"}, logit_normal(0.0, 1.0)),
        ({**FLOW, "draws": "logit_normal", "logit": (1.5, 0.5)}, logit_normal(1.5, 0.5)),
        ({**FLOW, "logit": (-1.0, 0.5)}, logit_normal(-1.0, 0.5)),
        ({**FLOW, **PREDICTS_TOKENS}, logit_normal(0.0, 1.0)),
        ({**FLOW, **PREDICTS_TOKENS, "logit": (1.5, 0.5)}, logit_normal(1.5, 0.5)),
        ({**FLOW, "prediction": "v_prediction"}, logit_normal(0.0, 1.0)),
        ({**FLOW, "name": "diffusion"}, uniform),
        ({**FLOW, "name": "diffusion", "draws": "logit_normal", "logit": (1.5, 0.5)},
         logit_normal(1.5, 0.5)),
    ],
)  # fmt: skip
def test_a_heads_timesteps_count_noise_and_follow_its_law(sizes, below):
    from contar.heads import head_law, make_head

    head: Any = make_head(sizes, VALUES, COND)
    seen: list[torch.Tensor] = []
    head.network.times = lambda _, index: seen.append(index) or torch.zeros(*index.shape, 8)
    head.loss(randn(1, 5, VALUES), randn(0, 5, COND), repeats=4000, generator=seeded())
    law, logit = head_law(sizes)
    chance = torch.rand(20_000, generator=seeded(1))
    steps = len(head.process)
    for index in (seen[0], head.process.place(chance, distribution=law, logit=logit)):
        # The noise of a step in shares of all steps; a flow's first is noise alone.
        noise = steps - 1 - index if sizes["name"] == "flow" else index
        shares = torch.bincount(noise.flatten(), minlength=steps).double().cumsum(0)[:-1]
        edges = torch.arange(1, steps, dtype=torch.float64) / steps
        # Kolmogorov-Smirnov: a distance of 1.95 / sqrt(n) is exceeded once in a thousand times.
        assert (shares / noise.numel() - below(edges)).abs().max() <= 1.95 / noise.numel() ** 0.5


def test_a_gpus_timesteps_stay_where_a_captured_graph_reads_them(monkeypatch):
    kept = torch.ones(1)
    monkeypatch.setattr(diffusion_mlp, "_kept", lambda values, device: kept)
    assert diffusion_mlp._timesteps((1.0,), torch.device("cuda")) is kept
    assert diffusion_mlp._timesteps((1.0,), torch.device("cpu")) is not kept
