"""Heads equal those of other libraries, with the same weights, at two sizes each.

Bounds: outputs and losses 1e-5, samples and gradients 1e-4, of the largest value.
"""

import importlib
from importlib.metadata import version
from typing import Any

import pytest
import torch
from heads import Given  # type: ignore[import-not-found]
from packaging.version import Version
from torch import Tensor, nn

from contar.conditioning import Guidance
from contar.heads import released_head

pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
SINCE = {"sktime": "1.2", "transformers": "5.24"}
SIZES = [
    {"token": 6, "cond": 12, "width": 16, "depth": 2},
    {"token": 16, "cond": 24, "width": 40, "depth": 3},
]
sizes = pytest.mark.parametrize("size", SIZES, ids=["small", "larger"])


def theirs_of(module: str, name: str) -> Any:
    """Return what a module of another library has; a test is skipped where that is too old."""
    library = module.partition(".")[0]
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        lowest, there = SINCE[library], version(library)
        if Version(there) >= Version(lowest):
            raise
        pytest.skip(f"no {module}.{name} in {library} {there}, below {lowest}")


def filled(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight a value at which its gradient is not 0."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=draws).mul_(0.3 / max(1, parameter.shape[-1]) ** 0.5)
            if parameter.ndim == 1:
                parameter += 0.5
    return module


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(found: Tensor, wanted: Tensor, bound: float) -> None:
    assert found.shape == wanted.shape
    found, wanted = found.detach(), wanted.detach()
    assert (found - wanted).abs().max() <= bound * max(1.0, float(wanted.abs().max()))


def assert_gradients(theirs: nn.Module, within: str, name: str, head: Any, **options: Any) -> None:
    """Gradients are renamed as weights are, so that a head of them shows each in its place."""
    gradients = {f"{within}{key}": p.grad for key, p in theirs.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    wanted: Any = released_head(name, gradients, **options)  # type: ignore[arg-type]
    found = dict(head.named_parameters())
    assert len(found) >= 10
    for key, gradient in wanted.named_parameters():
        close(found[key].grad, gradient.detach(), 1e-4)
        assert gradient.abs().max() > 0, key


# Sundial's flow loss, of sktime.


def sundial(size: dict[str, int]) -> tuple[Any, Any]:
    make = theirs_of("sktime.libs.sundial.flow_loss", "FlowLoss")
    theirs = filled(make(size["token"], size["cond"], size["depth"], size["width"], 5))
    state = {f"flow_loss.{key}": value for key, value in theirs.state_dict().items()}
    return theirs, released_head("sundial", state, steps=5)


@sizes
def test_sundials_head_predicts_as_sktimes(size):
    theirs, head = sundial(size)
    x, cond, t = randn(1, 7, size["token"]), randn(2, 7, size["cond"]), torch.rand(7) * 1000
    close(head.network(x, t, head.network.condition(cond)), theirs.net(x, t, cond), 1e-5)


@sizes
def test_sundials_loss_and_gradients_are_sktimes(size, monkeypatch):
    theirs, head = sundial(size)
    target, cond, noise = (
        randn(1, 7, size["token"]),
        randn(2, 7, size["cond"]),
        randn(3, 7, size["token"]),
    )
    index = torch.tensor([[0, 1, 120, 400, 777, 998, 999]])
    t = 1 - head.process.sigma[index[0]]
    monkeypatch.setattr(torch, "randn_like", lambda _: noise)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: t)
    wanted = theirs(target, cond)
    wanted.backward()
    found = head.loss(target, cond, noise=noise[None], index=index).mean() * size["token"]
    close(found, wanted, 1e-5)
    found.backward()
    assert_gradients(theirs, "flow_loss.", "sundial", head)


@sizes
def test_sundials_samples_are_sktimes(size, monkeypatch):
    theirs, head = sundial(size)
    cond, noise = randn(2, 7, size["cond"]), randn(3, 7, size["token"])
    monkeypatch.setattr(torch, "randn", lambda *_, **__: noise)
    close(head.sample(cond[None], noise=Given(noise[None]))[0], theirs.sample(cond)[:, 0], 1e-4)


def test_sundials_head_draws_in_as_many_steps_as_sktimes_model():
    config = theirs_of("sktime.libs.sundial.configuration_sundial", "SundialConfig")()
    theirs, _ = sundial(SIZES[0])
    state = {f"flow_loss.{key}": value for key, value in theirs.state_dict().items()}
    head: Any = released_head("sundial", state)
    assert len(head.table()) == config.num_sampling_steps


# Pocket TTS and Phonon, of transformers.

SPEECH = {"pocket_tts": "PocketTTS", "phonon": "GradiumPhononTTS"}
speech = pytest.mark.parametrize("name", SPEECH)


def spoken(name: str, size: dict[str, int]) -> tuple[Any, Any, Any]:
    """Return their head, their weighting and ours."""
    kind = SPEECH[name]
    config = theirs_of("transformers", f"{kind}Config")(
        hidden_size=size["cond"], num_attention_heads=2, num_hidden_layers=1, intermediate_size=8,
        latent_dim=size["token"], flow_loss_num_samples=3, eos_loss_weight=0.0,
        flow_head_config={
            "hidden_size": size["width"], "num_hidden_layers": size["depth"],
            "latent_dim": size["token"], "condition_dim": size["cond"],
            "loss_weighting_hidden_size": 8,
        },
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = theirs_of("transformers", f"{kind}ForConditionalGeneration")(config)
    filled(theirs)
    head = released_head(name, theirs.state_dict(), share=1.0, weighting=8)
    return theirs, config, head


@speech
@sizes
def test_a_speech_models_flow_head_predicts_as_transformers(name, size):
    theirs, _, head = spoken(name, size)
    x, cond = randn(1, 7, size["token"]), randn(2, 7, size["cond"])
    start, end = torch.rand(2, 7, generator=torch.Generator().manual_seed(0)).sort(0).values
    wanted = theirs.flow_head(x, cond, times=[start[:, None], end[:, None]])
    close(head(x, start, end, head.network.condition(cond)), wanted, 1e-5)


@speech
@sizes
def test_a_speech_models_loss_and_gradients_are_transformers(name, size, monkeypatch):
    theirs, config, head = spoken(name, size)
    target, cond = randn(1, 7, size["token"]), randn(2, 7, size["cond"])
    noise, logits = randn(3, 3, 7, size["token"]), randn(4, 3, 3, 7)
    flat = [noise.flatten(0, 1), logits[0].reshape(-1, 1), logits[1:].reshape(2, -1).T]
    drawn = iter(flat)
    monkeypatch.setattr(torch, "randn_like", lambda _: next(drawn))
    wanted = theirs.loss_function(
        flow_head=theirs.flow_head, conditions=cond, targets=target, eos_logits=torch.zeros(2),
        eos_labels=torch.zeros(2), config=config, loss_weighting=theirs.loss_weighting,
        distill_generator=torch.Generator(), training=False,
    )  # fmt: skip
    wanted.backward()
    times = (logits * config.lsd_time_logit_std + config.lsd_time_logit_mean).sigmoid()
    monkeypatch.undo()
    found = head.loss(target, cond, repeats=3, noise=noise, times=times).mean()
    close(found, wanted, 1e-5)
    found.backward()
    parts = nn.ModuleDict({"flow_head": theirs.flow_head, "loss_weighting": theirs.loss_weighting})
    assert_gradients(parts, "", name, head, weighting=8)


@speech
@sizes
@pytest.mark.parametrize("steps", [1, 4])
def test_a_speech_models_latents_are_transformers(name, size, steps):
    theirs, _, head = spoken(name, size)
    cond, noise = randn(2, 7, size["cond"]), randn(3, 7, size["token"])
    temperature = 0.7  # there the variance of the noise
    wanted = theirs.sample_latent(cond, noise * temperature**0.5, steps)
    found = head.sample(
        cond[None], noise=Given(noise[None]), steps=steps, temperature=temperature**0.5
    )
    close(found[0], wanted, 1e-4)


# VibeVoice, of transformers.


class _Parts(nn.Module):
    def __init__(self, diffusion_head: nn.Module) -> None:
        super().__init__()
        self.diffusion_head = diffusion_head


def vibevoice(size: dict[str, int]) -> tuple[Any, Any]:
    config = theirs_of("transformers", "VibeVoiceDiffusionHeadConfig")(
        hidden_size=size["width"], latent_size=size["token"], num_hidden_layers=size["depth"],
        intermediate_size=size["cond"],
    )  # fmt: skip
    module = "transformers.models.vibevoice.modeling_vibevoice"
    theirs = _Parts(filled(theirs_of(module, "VibeVoiceDiffusionHead")(config)))
    return theirs, released_head("vibevoice", theirs.state_dict())


def scheduler_of(head: Any) -> Any:
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    config = {key: value for key, value in head.scheduler.items() if key != "_class_name"}
    scheduler = DPMSolverMultistepScheduler(**config)
    scheduler.set_timesteps(1000)  # without it, it adds the noise of 999 - t
    return scheduler


@sizes
def test_vibevoices_head_predicts_as_transformers(size):
    theirs, head = vibevoice(size)
    x, cond, t = randn(1, 7, size["token"]), randn(2, 7, size["width"]), torch.rand(7) * 1000
    wanted = theirs.diffusion_head(x, t, condition=cond)
    close(head.network(x, t, head.network.condition(cond)), wanted, 1e-5)


@sizes
def test_vibevoices_loss_and_gradients_are_transformers(size, monkeypatch):
    theirs, head = vibevoice(size)
    model = theirs_of("transformers", "VibeVoiceForConditionalGeneration")
    target, cond = randn(1, 7, size["token"]), randn(2, 7, size["width"])
    noise, index = randn(3, 2, 7, size["token"]), torch.arange(14).view(2, 7) * 71
    by_token = noise.transpose(0, 1).flatten(0, 1), index.T.flatten()
    monkeypatch.setattr(torch, "randn", lambda *_, **__: by_token[0])
    monkeypatch.setattr(torch, "multinomial", lambda *_, **__: by_token[1])
    wanted = model.compute_diffusion_loss(
        theirs.diffusion_head, target, cond, scheduler_of(head), 2, 1000
    )
    wanted.backward()
    monkeypatch.undo()
    found = head.loss(target, cond, repeats=2, noise=noise, index=index).mean()
    close(found, wanted, 1e-5)
    found.backward()
    assert_gradients(theirs, "", "vibevoice", head)


@sizes
@torch.no_grad()
def test_vibevoices_latents_are_transformers(size, monkeypatch):
    theirs, head = vibevoice(size)
    sample = theirs_of("transformers", "VibeVoiceForConditionalGeneration")._sample_audio_latent
    cond, uncond = randn(2, 7, size["width"]), randn(4, 7, size["width"])
    noise = randn(3, 7, size["token"])

    class Model:  # what their sampler asks a model for
        model = theirs

        class config:  # noqa: N801
            audio_config = type("Sizes", (), {"hidden_size": size["token"]})

    monkeypatch.setattr(torch, "randn", lambda *_, **__: torch.cat([noise, noise]))
    wanted = sample(Model(), cond, uncond, scheduler_of(head), 10, 1.3)[:, 0]
    monkeypatch.undo()
    found = head.sample(
        cond[None], uncond=uncond[None], guidance=Guidance(1.3), noise=Given(noise[None])
    )
    close(found[0], wanted, 1e-4)
