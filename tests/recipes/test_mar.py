"""MAR as a whole: its laws of generation and training, presets, initial weights."""

import dataclasses

import pytest
import torch
from tiny_mar import PLAN, SIZES, TOKENS, VALUES, tiny_mar

from contar.generation import Cancelled
from contar.ordering import TrainingMask, full_mask, mask_by_order, random_order
from recipes import mar

LABELS = torch.tensor([2, 0, 1])
# Of the largest value: kernels round at 6e-8 and choose their order of summation by the shape; the
# cosine schedule's first step divides by 5e-5, and three sets follow each other.
ROUNDING = 1e-3


def generator(seed):
    return torch.Generator().manual_seed(seed)


def close(x, y):
    assert x.shape == y.shape
    assert x.isfinite().all()
    assert (x - y).abs().max() <= ROUNDING * y.abs().max()


@pytest.fixture(scope="module")
def model():
    return tiny_mar()


def generate(model, seed=0, labels=LABELS, plan=PLAN, **options):
    return mar.generate(model, labels, plan, **{"generator": generator(seed), **options})


def test_equal_seeds_give_equal_latents_and_others_others(model):
    first = generate(model)
    assert first.shape == (3, 2, 4, 8)
    assert torch.equal(first, generate(model))
    assert not torch.allclose(first, generate(model, seed=1))


def test_with_a_generator_each_a_sample_does_not_depend_on_its_neighbours(model):
    together = generate(model, generator=[generator(i) for i in range(3)])
    for i in range(3):
        alone = generate(model, labels=LABELS[i : i + 1], generator=[generator(i)])
        close(alone[0], together[i])


def test_the_order_within_a_set_does_not_matter_nor_the_global_random_state(model):
    order = random_order(3, TOKENS, generator=generator(5))
    sizes = PLAN.sizes(TOKENS)
    turned = torch.cat([ids.flip(1) for ids in order.split(sizes, dim=1)], dim=1)
    state = torch.get_rng_state()
    first, second = (generate(model, order=ids) for ids in (order, turned))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_guidance_of_one_is_none_and_none_is_led_nowhere(model):
    plain = dataclasses.replace(PLAN, guidance=mar.Guidance())
    one = dataclasses.replace(PLAN, guidance=mar.Guidance(1.0, start=1.0))
    assert torch.equal(generate(model, plan=plain), generate(model, plan=one))
    nothing = torch.full_like(LABELS, 3)
    close(generate(model, labels=nothing), generate(model, labels=nothing, plan=plain))
    assert not torch.allclose(generate(model), generate(model, plan=plain))


@pytest.mark.parametrize(("start", "known"), [(1.0, (2, 4, 7)), (None, (8, 8, 8))])
def test_linear_guidance_follows_the_share_of_tokens_known(monkeypatch, start, known):
    seen, model = [], tiny_mar()  # one of its own, on which the patch may leave its mark
    sample = model.head.sample

    def watched(cond, **options):
        seen.append((cond.shape[1], options["guidance"].scale))
        return sample(cond, **options)

    monkeypatch.setattr(model.head, "sample", watched)
    generate(model, plan=dataclasses.replace(PLAN, guidance=mar.Guidance(3.0, start=start)))
    # 8 cos(pi k / 6) rounded down leaves 6, 4 and 0 tokens, but one counts as hidden at the end.
    assert [count for count, _ in seen] == [2, 2, 4]
    assert [scale for _, scale in seen] == pytest.approx([1 + 2 * k / 8 for k in known])


def test_a_temperature_of_zero_adds_no_noise(model):
    cold = dataclasses.replace(PLAN, temperature=0.0)
    assert not torch.allclose(generate(model, plan=cold), generate(model))


def test_generation_and_training_leave_model_and_inputs_as_they_were(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    labels, latents = LABELS.clone(), torch.randn(3, 2, 4, 8, generator=generator(0))
    kept = latents.clone()
    generate(model, labels=labels)
    mar.training_losses(model, latents, labels, label_drop=0.5, generator=generator(0))
    assert torch.equal(labels, LABELS)
    assert torch.equal(latents, kept)
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
    assert not model.training


def test_every_set_is_reported_and_any_can_be_the_last(model):
    seen = []
    latents = generate(model, callback=seen.append)
    assert [(p.frame, p.set, p.sets) for p in seen] == [(0, 0, 3), (0, 1, 3), (0, 2, 3)]
    filled = [int(p.tokens.ne(0).any(dim=2).sum()) for p in seen]
    assert filled == [3 * 2, 3 * 4, 3 * 8]
    seen[0].tokens.zero_()
    assert latents.isfinite().all()
    with pytest.raises(Cancelled):
        generate(model, cancel=lambda: len(seen) > 4, callback=seen.append)
    assert len(seen) == 5


def test_hidden_tokens_are_not_read_and_the_order_of_the_visible_does_not_matter(model):
    tokens = torch.randn(2, TOKENS, VALUES, generator=generator(0))
    visible = torch.tensor([[1, 5, 6], [7, 0, 2]])
    z = model(tokens, LABELS[:2], visible)
    assert z.shape == (2, TOKENS, 24)
    others = torch.zeros_like(tokens).scatter(1, visible[..., None].expand(-1, -1, VALUES), 1.0)
    assert torch.equal(model(torch.where(others > 0, tokens, 9.0), LABELS[:2], visible), z)
    close(model(tokens, LABELS[:2], visible.flip(1)), z)


def test_samples_that_show_different_numbers_of_tokens_stand_side_by_side(model):
    tokens = torch.randn(3, TOKENS, VALUES, generator=generator(0))
    order = random_order(3, TOKENS, generator=generator(1))
    mask = mask_by_order(order, torch.tensor([0, 4, 2]))
    together = model(tokens, LABELS, mask.visible_ids, padding_mask=mask.padding_mask)
    for i, count in enumerate((0, 4, 2)):
        row = slice(i, i + 1)
        close(model(tokens[row], LABELS[row], order[row, :count])[0], together[i])


def test_equal_seeds_give_equal_losses_and_what_is_drawn_may_be_given(model):
    latents = torch.randn(3, 2, 4, 8, generator=generator(0))
    first, second, third = (
        mar.training_losses(model, latents, LABELS, generator=generator(seed)).total
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    mask = full_mask(3, TOKENS)
    noise = torch.randn(2, 3 * TOKENS, VALUES, generator=generator(2))
    index = torch.arange(2 * 3 * TOKENS).view(2, -1)
    given = {"repeats": 2, "mask": mask, "noise": noise, "index": index, "label_drop": 0.0}
    losses = [mar.training_losses(model, latents, LABELS, **given).total for _ in range(2)]
    assert torch.equal(*losses)


def test_the_loss_does_not_depend_on_the_order_of_visible_tokens_or_samples(model):
    latents = torch.randn(2, 2, 4, 8, generator=generator(0))
    hidden = torch.ones(2, TOKENS, dtype=torch.bool)
    ids = torch.tensor([[1, 5, 6], [7, 0, 2]])
    hidden.scatter_(1, ids, torch.zeros_like(ids, dtype=torch.bool))
    noise = torch.randn(1, 10, VALUES, generator=generator(2))
    index = torch.arange(10)[None] * 90

    def loss(rows, ids):
        turned = rows[0] > rows[1]
        draws = [x.roll(5, dims=1) if turned else x for x in (noise, index)]
        return mar.training_losses(
            model, latents[rows], LABELS[rows], repeats=1, label_drop=0.0,
            mask=TrainingMask(hidden[rows], ids[rows]), noise=draws[0], index=draws[1],
        ).total  # fmt: skip

    straight, turned = torch.tensor([0, 1]), torch.tensor([1, 0])
    close(loss(straight, ids.flip(1)), loss(straight, ids))
    close(loss(turned, ids), loss(straight, ids))


def test_losses_of_dropped_labels_are_those_of_no_label(model):
    latents = torch.randn(3, 2, 4, 8, generator=generator(0))
    given = {
        "repeats": 1,
        "mask": full_mask(3, TOKENS),
        "noise": torch.randn(1, 3 * TOKENS, VALUES, generator=generator(2)),
        "index": torch.arange(3 * TOKENS)[None] * 40,
    }
    dropped = mar.training_losses(model, latents, LABELS, label_drop=1.0, **given).total
    nothing = torch.full_like(LABELS, 3)
    none = mar.training_losses(model, latents, nothing, label_drop=0.0, **given).total
    kept = mar.training_losses(model, latents, LABELS, label_drop=0.0, **given).total
    assert torch.equal(dropped, none)
    assert not torch.equal(dropped, kept)


def test_gradients_reach_every_parameter(model):
    latents = torch.randn(3, 2, 4, 8, generator=generator(0))
    labels = torch.tensor([0, 1, 3])
    order = random_order(3, TOKENS, generator=generator(1))
    mask = mask_by_order(order, torch.tensor([2, 2, 2]))
    losses = mar.training_losses(
        model, latents, labels, mask=mask, label_drop=0.0, generator=generator(0)
    )
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(losses.total, list(parameters.values()))
    assert [n for n, g in zip(parameters, gradients, strict=True) if not g.any()] == []
    assert losses.first is losses.total
    assert losses.later is None


def test_build_without_arguments_means_the_smallest_released_model():
    assert mar.build(device="meta").sizes == mar.PRESETS["mar-base"]


def test_an_untrained_model_predicts_zero_noise_as_the_official_one_does():
    model = mar.build(mar.MarConfig(**SIZES))
    x = torch.randn(5, VALUES)
    out = model.head.network(x, torch.ones(5), model.head.network.condition(torch.randn(5, 24)))
    assert not out.any()
    assert 0.01 < model.encoder_positions.std() < 0.03


def test_a_bfloat16_model_generates_finite_numbers_in_float32_and_trains():
    model = mar.build(mar.MarConfig(**SIZES), dtype=torch.bfloat16)
    model.load_state_dict(tiny_mar().state_dict())
    latents = generate(model)
    assert latents.dtype == torch.float32
    assert latents.isfinite().all()
    assert mar.training_losses(model, latents.clamp(-1, 1), LABELS).total.isfinite()


def test_another_sampler_may_be_named_that_reads_a_learned_variance(model):
    scheduler = {"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2",
                 "variance_type": "learned_range", "timestep_spacing": "leading",
                 "clip_sample": False}  # fmt: skip
    other = generate(model, plan=dataclasses.replace(PLAN, scheduler=scheduler))
    assert other.isfinite().all()
    assert not torch.allclose(other, generate(model))
