"""The tokenizer's training: what it measures stays, and what it was trained on is known."""

import pytest
import torch

from contar.tokenizers import VAETokenizer
from contar.training import RunConfig, VaeStage, fingerprint, train_vae
from recipes.moving_digits import MovingDigits

STAGE = VaeStage(widths=(8, 16, 16), run=RunConfig(steps=1, batch=2, warmup=1))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "vae"
    return train_vae(STAGE, MovingDigits("train", 4), MovingDigits("validation", 2), out), out


def test_a_run_resumed_after_its_end_returns_the_same_tokenizer_however_it_rounds(
    trained, monkeypatch
):
    made, out = trained
    assert all(deviation > 0 for deviation in made.config["latents_std"])
    encode = VAETokenizer.encode
    monkeypatch.setattr(VAETokenizer, "encode", lambda self, x: encode(self, x) * 1.00001)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        clips = (MovingDigits("train", 4), MovingDigits("validation", 2))
        again = train_vae(STAGE, *clips, out, resume=True)
    finally:
        torch.set_num_threads(threads)
    assert fingerprint(again) == fingerprint(made)


def test_as_many_other_clips_are_refused_on_resuming(trained, refuses):
    clips = (MovingDigits("train", 4, seed=1), MovingDigits("validation", 2))
    with refuses("resume", "clips"):
        train_vae(STAGE, *clips, trained[1], resume=True)
