"""All clips of a cache as tensors: as they were written, found again, and cut into windows."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import COUNT, SIZES, make_cache

from contar.data import Cache, Sample, write_cache
from contar.tokenizers import CausalVAE, VAETokenizer
from contar.training import Latents, RunConfig, latents
from recipes import nova
from recipes._nova.training import Batches, NovaObjective, NovaStage
from recipes.moving_digits import BouncingDigits, digits_latents, load_text, scored


def numbered(clips: int = 6, frames: int = 9) -> Latents:
    """Return clips whose latent frame t of clip n is 100 n + t everywhere, without deviation."""
    values = 100.0 * torch.arange(clips)[:, None] + torch.arange(frames)
    mean = values[:, None, :, None, None].expand(-1, 4, -1, 8, 8)
    return Latents(
        moments=torch.cat([mean, torch.zeros_like(mean)], dim=1).half(),
        texts=torch.randn(clips, 4, 8, generator=torch.Generator().manual_seed(0)).half(),
        lengths=torch.full((clips,), 3),
        text_of=torch.arange(clips),
        motion_flow=torch.arange(clips).float(),
        fps=torch.full((clips,), 8.0),
        begins=torch.ones(clips, dtype=torch.bool),
        made_with={"data": "numbers"},
        fingerprint="f",
    )


def stage(**options: Any) -> NovaStage:
    return NovaStage(RunConfig(), **{"repeats": 1, "drop_motion": 0.0, "drop_text": 0.0, **options})


def test_a_cache_is_read_as_it_was_written(tmp_path):
    cache = make_cache(tmp_path / "cache")
    data = Latents.of(cache)
    assert len(data) == COUNT
    for index in (0, 7, COUNT - 1):
        sample = cache[index]
        assert np.array_equal(data.moments[index], sample.arrays["latents"])
        text = data.text_of[index]
        assert np.array_equal(data.texts[text, : data.lengths[text]], sample.arrays["text"])
        assert float(data.motion_flow[index]) == pytest.approx(sample.facts["motion_flow"])
        assert float(data.fps[index]) == sample.facts["fps"]
    assert data.begins.all()
    assert data.fingerprint == cache.fingerprint


def test_texts_of_two_precisions_keep_their_numbers(tmp_path):
    large = np.full((2, 8), 1e6, np.float32)  # beyond float16
    samples = (
        Sample(
            {"latents": np.ones((8, 3, 8, 8), np.float16), "text": text},
            {"caption": "red", "fps": 7.0, "motion_flow": 0.1},
        )
        for text in (np.ones((3, 8), np.float16), large)
    )
    data = Latents.of(Cache(write_cache(samples, tmp_path / "cache", made_with={})))
    assert torch.equal(data.texts[1, :2], torch.from_numpy(large))
    assert data.lengths.tolist() == [3, 2]


def test_what_is_saved_comes_back_and_other_clips_are_refused(tmp_path, refuses):
    data = numbered()
    data.save(tmp_path)
    again = Latents.load(tmp_path, made_with={"data": "numbers"})
    for name, value in vars(data).items():
        same = torch.equal(value, getattr(again, name)) if isinstance(value, torch.Tensor) else None
        assert same or getattr(again, name) == value, name
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "latents.json", "latents.safetensors"
    ]  # fmt: skip
    with refuses("latents", "'numbers'", "'others'"):
        Latents.load(tmp_path, made_with={"data": "others"})
    with pytest.raises(FileNotFoundError):
        Latents.load(tmp_path / "none", made_with={})


def test_damaged_latents_are_named(tmp_path, refuses):
    from safetensors.torch import load_file, save_file

    numbered().save(tmp_path)
    file, facts = tmp_path / "latents.safetensors", tmp_path / "latents.json"
    whole, said = file.read_bytes(), facts.read_text()
    save_file({k: v for k, v in load_file(file).items() if k != "fps"}, file)
    with refuses("latents", "text_of"):
        Latents.load(tmp_path, made_with={"data": "numbers"})
    file.write_bytes(whole[: len(whole) // 2])
    with refuses(f"{tmp_path.name}/latents.safetensors"):
        Latents.load(tmp_path, made_with={"data": "numbers"})
    file.write_bytes(whole)
    for content in ("{", "[]", json.dumps({"fingerprint": "f"})):
        facts.write_text(content)
        with refuses("latents"):
            Latents.load(tmp_path, made_with={"data": "numbers"})
    facts.write_text(said)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        Latents.load(tmp_path, made_with={"data": "numbers"})


def test_some_of_the_clips_keep_their_texts_and_numbers():
    data = numbered().take([4, 1])
    assert data.moments[:, 0, 0, 0, 0].tolist() == [400, 100]
    assert data.motion_flow.tolist() == [4, 1]
    assert torch.equal(data.texts[data.text_of[0]], numbered().texts[4])


def test_samples_are_windows_of_their_clips_as_often_from_later_as_asked():
    load = Batches(numbered(), SIZES, stage(frames=3, later=0.4))
    begins, later = [], []
    for step in range(80):
        (batch,) = load(range(6), step)
        assert batch.latents.shape == (6, 4, 3, 8, 8)
        assert batch.given is not None
        places = batch.latents[:, 0, :, 0, 0] - 100 * torch.arange(6)[:, None]
        assert torch.equal(places - places[:, :1], torch.arange(3.0).expand(6, -1))
        assert torch.equal(batch.given, (places[:, 0] > 0).long())
        begins += (places[:, 0] == 0).tolist()
        later += places[:, 0][places[:, 0] > 0].tolist()
    assert np.mean(begins) == pytest.approx(0.6, abs=0.07)  # three deviations of 480 draws
    assert set(later) == {1, 2, 3, 4, 5, 6}


def test_whole_clips_are_as_they_were_and_nothing_of_them_is_given():
    for options in ({}, {"frames": 9}, {"frames": 9, "later": 1.0}):
        (batch,) = Batches(numbered(), SIZES, stage(**options))([2, 5], 0)
        assert batch.latents[:, 0, :, 0, 0].tolist() == [
            [100.0 * n + t for t in range(9)] for n in (2, 5)
        ]
        assert batch.given is None or not batch.given.any()


def test_a_clip_that_does_not_begin_where_its_caption_does_has_its_first_frame_given():
    data = replace(numbered(), begins=torch.tensor([True, False] * 3))
    for options in ({}, {"frames": 3}):
        (batch,) = Batches(data, SIZES, stage(**options))(range(6), 0)
        assert batch.given is not None
        assert batch.given.tolist() == [0, 1] * 3


def test_a_network_of_images_learns_each_clips_first_frame():
    images = replace(SIZES, frames=1, adapter=None)
    (batch,) = Batches(numbered(), images, stage(frames=3, later=1.0))(range(6), 0)
    assert batch.latents[:, 0, :, 0, 0].tolist() == [[100.0 * n] for n in range(6)]
    assert batch.given is batch.seen is batch.motion_flow is batch.fps is None


def test_windows_longer_than_the_clips_are_refused(refuses):
    with refuses("frames", "10", "9"):
        Batches(numbered(), SIZES, stage(frames=10))


def test_noise_in_the_context_is_drawn_for_each_clip_and_leaves_the_latents():
    plain = Batches(numbered(), SIZES, stage())
    noisy = Batches(numbered(), SIZES, stage(context_noise=(0.1, 0.5)))
    (without,), (batch,) = plain(range(6), 4), noisy(range(6), 4)
    assert without.seen is None
    assert batch.seen is not None
    assert torch.equal(batch.latents, without.latents)
    assert batch.noise is not None
    assert without.noise is not None
    assert torch.equal(batch.noise, without.noise)
    levels = (batch.seen - batch.latents[:, :, :-1]).flatten(1).std(1)
    assert ((levels > 0.09) & (levels < 0.52)).all()
    assert len(set(levels.tolist())) == 6


def test_a_batch_in_parts_has_the_rows_of_the_whole_and_its_losses():
    options = {"frames": 3, "later": 0.5, "context_noise": (0.1, 0.4), "drop_text": 0.5}
    load = Batches(numbered(), SIZES, stage(**options))
    (whole,), parts = load([3, 0, 5, 2], 7), [load(rows, 7)[0] for rows in ([3, 0], [5, 2])]
    for name, value in vars(whole).items():
        if name == "seed":  # of another head's draws
            continue
        axis = 1 if name in ("noise", "index") else 0  # of the samples, or of their tokens
        joined = torch.cat([getattr(part, name) for part in parts], dim=axis)
        assert torch.equal(joined, value), name
    (again,), (other,) = load([3, 0, 5, 2], 7), load([3, 0, 5, 2], 8)
    noise, same, others = (batch.noise for batch in (whole, again, other))
    assert noise is not None
    assert same is not None
    assert others is not None
    assert torch.equal(same, noise)
    assert not torch.equal(others[:, :1], noise[:, :1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        objective = NovaObjective(nova.build(SIZES), repeats=1)
    mean = sum(float(objective(part)["loss"].detach()) for part in parts) / 2
    assert float(objective(whole)["loss"].detach()) == pytest.approx(mean, rel=1e-5)


def test_texts_are_filled_up_as_the_network_does_it(tmp_path):
    torch.manual_seed(0)
    model = nova.build(SIZES)
    texts = torch.randn(3, 3, 8)
    lengths = torch.tensor([3, 0, 2])
    padded = NovaObjective(model)._padded(texts, lengths)
    ragged = [text[:length] for text, length in zip(texts, lengths.tolist(), strict=True)]
    assert torch.equal(padded, model.text.pad(ragged))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("context_noise", {"context_noise": (0.3, 0.1)}),
        ("context_noise", {"context_noise": (-0.1, 0.1)}),
        ("context_noise", {"context_noise": "0.1"}),
        ("context_noise", {"context_noise": 0.1}),
        ("frames", {"frames": 0}),
        ("frames", {"frames": 2.5}),
        ("later", {"later": 1.5, "frames": 3}),
        ("later", {"later": 0.5}),
    ],
)
def test_a_stage_refuses_other_windows_and_noise(name, options, refuses):
    with refuses(name):
        stage(**options)


def test_windows_of_one_frame_are_not_cut_from_later_in_their_clip(refuses):
    with refuses("later", "0.5", "0 where samples are single frames"):
        Batches(numbered(), SIZES, stage(frames=1, later=0.5))


def test_facts_never_stand_beside_the_tensors_of_other_latents(tmp_path, monkeypatch):
    known = {"data": "numbers"}
    numbered().save(tmp_path)
    whole = Latents.load(tmp_path, made_with=known)
    write = latents.write_whole
    monkeypatch.setattr(latents, "write_whole", lambda *_: pytest.fail("killed"))
    with pytest.raises(pytest.fail.Exception, match="killed"):
        replace(whole, moments=whole.moments + 1).save(tmp_path)
    with pytest.raises(FileNotFoundError):
        Latents.load(tmp_path, made_with=known)
    monkeypatch.setattr(latents, "write_whole", write)
    whole.save(tmp_path)
    assert torch.equal(Latents.load(tmp_path, made_with=known).moments, whole.moments)


@pytest.fixture(scope="module")
def parts():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = CausalVAE(widths=(8, 16, 16)).eval().requires_grad_(False)
    return vae, *load_text()


def encoded(digits: BouncingDigits, parts: Any, out: Path) -> Latents:
    vae, words, encoder = parts
    with scored(digits) as scores:
        return digits_latents(digits, vae, words, encoder, out, scores=scores, length=16, fps=8.0)


def test_digits_are_encoded_once_as_their_tokenizer_and_text_encoder_do_it(
    parts, tmp_path, monkeypatch, refuses
):
    from contar.conditioning import encode_texts
    from contar.media import motion_score

    digits = BouncingDigits("train", 5, frames=21, cut=0.5)
    data = encoded(digits, parts, tmp_path / "latents")
    tokenizer = VAETokenizer(parts[0])
    for index in range(5):
        clip = digits[index]
        pixels = clip.frames.permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        mean = data.moments[index].float().chunk(2)[0]
        wanted = tokenizer.encode(pixels)[0]
        assert (mean - wanted).abs().max() <= 0.04 * wanted.abs().max()  # bfloat16, float16
        text = data.text_of[index]
        (states,) = encode_texts([clip.caption], *parts[1:], length=16)
        torch.testing.assert_close(
            data.texts[text, : data.lengths[text]].float(), states, rtol=0, atol=0.01
        )
        assert float(data.motion_flow[index]) == pytest.approx(motion_score(clip.frames[:5]))
    assert data.begins.tolist() == digits.draw(range(5)).begins.tolist()
    assert data.moments.shape == (5, 8, 6, 8, 8)

    monkeypatch.setattr(
        "recipes.moving_digits.stages.latents._encode", lambda *_, **__: pytest.fail("again")
    )
    again = encoded(digits, parts, tmp_path / "latents")
    assert torch.equal(again.moments, data.moments)
    assert again.fingerprint == data.fingerprint
    for other in (
        BouncingDigits("train", 5, frames=21, cut=0.4), BouncingDigits("train", 5, cut=0.5),
        BouncingDigits("train", 5, frames=21, cut=0.5, seed=1),
    ):  # fmt: skip
        with refuses("latents", "bouncing digits"):
            encoded(other, parts, tmp_path / "latents")


def test_batches_from_disk_are_those_of_the_whole_cache_and_read_their_samples_alone(
    tmp_path, refuses
):
    read: list[int] = []

    class Watched(Cache):
        def __getitem__(self, index: int) -> Sample:
            read.append(index)
            return super().__getitem__(index)

    make_cache(tmp_path / "cache")
    cache, cut = Watched(tmp_path / "cache"), stage(repeats=2, frames=2, later=0.5, drop_text=0.3)
    whole, load = (Batches(cache, SIZES, replace(cut, from_disk=x)) for x in (False, True))
    for step in (0, 7, "validation"):
        (wanted,) = whole([5, 2, 11], step)
        read.clear()
        (batch,) = load([5, 2, 11], step)
        assert {*read} == {0, 5, 2, 11}  # the first is what the others have to look like
        for name, value in vars(wanted).items():
            mine = getattr(batch, name)
            same = torch.equal(mine, value) if isinstance(value, torch.Tensor) else mine == value
            assert same, name
    with refuses("from_disk", "True"):
        Batches(numbered(), SIZES, stage(from_disk=True))
