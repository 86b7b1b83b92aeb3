"""A pipeline makes white anew and gives black back."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from contar.media import read_video, write_video
from contar.tokenizers import VAETokenizer, patchify
from recipes import nova
from recipes._nova.pixels import read_edit
from recipes._nova.settings import read_plan

SEVEN, THREE = "a seven moves to the left", "a 3 moves up"
FAST: dict[str, Any] = {"num_inference_steps": 2, "num_diffusion_steps": 2}
TOKEN = 16  # pixels of a token's side, of moving-digits
seeds = st.integers(0, 99)


@pytest.fixture(scope="module")
def pipe() -> nova.NovaPipeline:
    pipe = nova.from_pretrained("moving-digits", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clip(frames: int, seed: int = 0, side: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, side, side, 3), dtype=np.uint8)


def corner(frames: int = 0) -> np.ndarray:
    """Return a mask that is white in a corner of some 7 pixels."""
    mask = np.zeros((frames, 64, 64) if frames else (64, 64), np.uint8)
    mask[..., 57:, 57:] = 255
    return mask


def run(pipe: nova.NovaPipeline, prompt: Any = SEVEN, seed: int = 0, **options: Any) -> Any:
    options = {"num_frames": 9, "generator": seeded(seed), **FAST, **options}
    return pipe(prompt, **options).frames


few = settings(max_examples=min(settings().max_examples, 10))


@few
@given(
    top=st.integers(0, 63), left=st.integers(0, 63), height=st.integers(1, 64),
    width=st.integers(1, 64), shown=st.integers(0, 2), grow=st.integers(0, 2), seed=seeds,
)  # fmt: skip
def test_far_from_white_the_given_pixels_come_back_and_kept_latents_to_the_last_bit(
    pipe, top, left, height, width, shown, grow, seed
):
    video = clip(4 * shown + 1, seed)
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    made = run(pipe, seed=seed, video=video, mask=mask, grow=grow)
    rows, columns = np.arange(64)[:, None], np.arange(64)
    # How far a pixel is from the rectangle, along the farther axis.
    down = np.maximum(top - rows, rows - (top + height - 1)).clip(0)
    right = np.maximum(left - columns, columns - (left + width - 1)).clip(0)
    far = np.maximum(down, right) > grow * TOKEN
    n = len(video)
    assert np.array_equal(made[0, :n][:, far], video[:, far])
    latents = run(pipe, seed=seed, video=video, mask=mask, grow=grow, output_type="latent")
    pixels = torch.from_numpy(video).permute(3, 0, 1, 2)[None].float()
    draws, tokenizer = seeded(seed), VAETokenizer(pipe.vae)
    encoded = tokenizer.encode((pixels - 127.5) / 127.5, generator=draws)
    white = mask.view(4, TOKEN, 4, TOKEN).any(3).any(1)
    grown = torch.nn.functional.max_pool2d(white[None].float(), 2 * grow + 1, 1, grow)
    kept = ~grown.bool().flatten()
    tokens = [patchify(x.transpose(1, 2), 2)[:, : shown + 1, kept] for x in (latents, encoded)]
    assert torch.equal(*tokens)
    shown_latents = tokenizer.decode(latents)[0].permute(1, 2, 3, 0)[:n].mul(127.5).add(127.5)
    inside = mask.numpy()
    plain = shown_latents.clamp(0, 255).byte().numpy()
    assert np.array_equal(made[0, :n][:, inside], plain[:, inside])


@few
@given(seed=seeds)
def test_with_all_white_nothing_is_kept_and_the_draws_are_a_generations(pipe, seed):
    video = clip(9, seed)
    mask = np.full((64, 64), 255, np.uint8)
    found = run(pipe, seed=seed, video=video, mask=mask, output_type="latent")
    draws = seeded(seed)
    VAETokenizer(pipe.vae).encode(torch.zeros(1, 3, 9, 64, 64), generator=draws)
    assert torch.equal(found, run(pipe, generator=draws, output_type="latent"))


def test_white_in_one_frame_is_white_in_all_of_its_latent_frame_and_in_no_other(pipe):
    video, mask = clip(9), np.zeros((9, 64, 64), bool)
    mask[6, 60:, 60:] = True  # of the frames 5 to 8
    made = run(pipe, video=video, mask=mask)[0]
    assert np.array_equal(made[:5], video[:5])
    for t in range(5, 9):
        assert (made[t, 60:, 60:] != video[t, 60:, 60:]).mean() > 0.9
        assert np.array_equal(made[t, :32], video[t, :32])


def test_all_types_of_output_and_the_stream_are_joined_alike(pipe):
    options: dict[str, Any] = {"video": clip(5), "mask": corner()}
    array = run(pipe, **options)
    assert np.array_equal(array[0, :5, :40], clip(5)[:, :40])
    pil = run(pipe, output_type="pil", **options)
    assert np.array_equal(np.stack([*map(np.asarray, pil[0])]), array[0])
    pt = run(pipe, output_type="pt", **options)
    assert (pt.permute(0, 1, 3, 4, 2).numpy() * 255 - array).min() > -0.51
    assert (pt.permute(0, 1, 3, 4, 2).numpy() * 255 - array).max() < 1.51
    assert torch.equal(pt[0, :5, :, :40], torch.from_numpy(clip(5)[:, :40]).movedim(-1, 1) / 255)
    pieces = pipe.stream(SEVEN, num_frames=9, generator=seeded(), **FAST, **options)
    streamed = np.concatenate([*pieces])
    assert np.abs(streamed.astype(int) - array[0]).max() <= 1


def test_masks_may_be_pictures_and_grey_is_cut_in_the_middle(pipe):
    wanted = run(pipe, image=clip(1)[0], mask=corner())
    picture = Image.fromarray(np.where(corner() > 0, 128, 127).astype(np.uint8))
    assert np.array_equal(run(pipe, image=Image.fromarray(clip(1)[0]), mask=picture), wanted)
    assert np.array_equal(run(pipe, image=clip(1)[0], mask=[picture.convert("RGB")]), wanted)
    assert np.array_equal(run(pipe, video=clip(1), mask=torch.from_numpy(corner())), wanted)
    bools = corner(1) > 0
    assert np.array_equal(run(pipe, video=clip(1), mask=bools), wanted)


def test_each_prompt_has_its_clip_and_each_sample_its_prompt_s(pipe):
    clips = np.stack([clip(5), clip(5, 1)])
    options = {"mask": corner(), "num_images_per_prompt": 2, "num_frames": 5}
    made = run(pipe, [SEVEN, THREE], video=clips, **options)
    for row, given_clip in zip(made, clips[[0, 0, 1, 1]], strict=True):
        assert np.array_equal(row[:, :40], given_clip[:, :40])
    draws = [seeded(i) for i in range(4)]
    each = run(pipe, [SEVEN, THREE], video=clips, generator=draws, **options)
    one = run(pipe, video=clips[0], generator=[seeded(0)], mask=corner(), num_frames=5)
    assert np.abs(one[0].astype(int) - each[0]).max() <= 1


def test_in_chunks_all_frames_are_edited(pipe):
    video, mask = clip(17), corner()
    plan = {"chunk": 3, "overlap": 1}
    seen: list[tuple[int, int]] = []
    made = run(
        pipe, video=video, mask=mask, num_frames=17, plan_changes=plan,
        callback_on_step_end=lambda pipe, done, frame, kept: seen.append((done, frame)),
    )  # fmt: skip
    assert np.array_equal(made[0, :, :40], video[:, :40])
    assert seen == [(i + 1, i // 2) for i in range(10)]  # 2 sets for each of 5 latent frames


def test_a_canvas_is_made_around_what_is_given(pipe):
    small, canvas = clip(9, side=40), (8, 4, 16, 20)  # top, right, bottom, left
    made = run(pipe, video=small, canvas=canvas)[0]
    assert made.shape == (9, 64, 64, 3)
    inner = made[:, 8:48, 20:60]
    # From what is white 17 pixels: rows 25 to 30 of the frame, columns 37 to 42.
    assert np.array_equal(inner[:, 17:23, 17:23], small[:, 17:23, 17:23])
    mask = np.zeros((40, 40), np.uint8)
    mask[20, 20] = 255
    other = run(pipe, video=small, canvas=canvas, mask=mask)[0]
    assert not np.array_equal(other[:, 25:31, 37:43], made[:, 25:31, 37:43])
    border = run(pipe, image=clip(1, side=48)[0], canvas=(0, 16, 16, 0), num_frames=1)
    assert np.array_equal(border[0, 0, :31, :31], clip(1, side=48)[0, :31, :31])


def test_the_ends_of_a_mix_are_the_prompts(pipe):
    one, other = run(pipe, SEVEN), run(pipe, THREE)
    assert np.array_equal(run(pipe, SEVEN, mix=(THREE, 0)), one)
    assert np.array_equal(run(pipe, SEVEN, mix=(THREE, 1.0)), other)
    both = run(pipe, [SEVEN, THREE], mix=([THREE, SEVEN], 1))
    assert np.array_equal(both, run(pipe, [THREE, SEVEN]))
    half = run(pipe, SEVEN, mix=(THREE, 0.5), negative_prompt="a nine")
    assert half.shape == one.shape
    assert not np.array_equal(half, run(pipe, SEVEN, negative_prompt="a nine"))


NOTHING = np.zeros((64, 64), np.uint8)
STATE = torch.zeros(1, 4, 384)


@pytest.mark.parametrize(
    ("name", "came", "options"),
    [
        ("mask", "a mask", {"mask": corner()}),
        ("canvas", "a canvas", {"canvas": (0, 0, 0, 16)}),
        ("mask", "no white pixel", {"video": clip(5), "mask": NOTHING}),
        ("mask", "no white pixel", {"image": clip(1)[0], "mask": np.full((64, 64), 127, np.uint8)}),
        ("mask", "(32, 64)", {"video": clip(5), "mask": NOTHING[:32]}),
        ("mask", "(4, 64, 64)", {"video": clip(5), "mask": corner(4)}),
        ("mask", "(64, 64)", {"video": clip(5, side=48), "canvas": (0, 16, 16, 0),
                              "mask": corner()}),
        ("mask", "(1, 5, 64, 64)", {"video": clip(5), "mask": corner(5)[None]}),
        ("mask", "float32", {"video": clip(5), "mask": corner().astype(np.float32)}),
        ("mask", "str", {"video": clip(5), "mask": "mask.png"}),
        ("mask", "list", {"video": clip(5), "mask": [corner()]}),
        ("mask", "nothing kept of latent frame 1, all of 2",
         {"video": clip(9), "mask": np.arange(9)[:, None, None] % 5 + corner(9) * 0 == 4}),
        ("video", "(5, 64, 64, 3)", {"video": clip(5), "canvas": (0, 0, 0, 16)}),
        ("canvas", "(1, 2, 3)", {"video": clip(5), "canvas": (1, 2, 3)}),
        ("canvas", "-1", {"video": clip(5), "canvas": (0, 0, 0, -1)}),
        ("canvas", "1.5", {"video": clip(5), "canvas": (0, 0, 0, 1.5)}),
        ("canvas", "16", {"video": clip(5), "canvas": 16}),
        ("canvas", "(32, 0, 32, 0)", {"video": clip(5), "canvas": (32, 0, 32, 0)}),
        ("grow", "-1", {"video": clip(5), "mask": corner(), "grow": -1}),
        ("grow", "5", {"video": clip(5), "mask": corner(), "grow": 5}),
        ("grow", "0.5", {"video": clip(5), "mask": corner(), "grow": 0.5}),
        ("mix", "'a 3'", {"mix": "a 3"}),
        ("mix", "1.5", {"mix": ("a 3", 1.5)}),
        ("mix", "nan", {"mix": ("a 3", float("nan"))}),
        ("mix", "2 texts", {"mix": (["a 3", "a 4"], 0.5)}),
        ("mix", "int", {"mix": ([3], 0.5)}),
    ],
)  # fmt: skip
def test_bad_masks_canvases_and_mixes_are_refused_before_work(
    pipe, name, came, options, refuses, monkeypatch
):
    def work(*_: object, **__: object) -> None:
        raise AssertionError("work before the refusal")

    monkeypatch.setattr(VAETokenizer, "posterior", work)
    monkeypatch.setattr(nova.NovaPipeline, "_states", work)
    with refuses(name, came):
        run(pipe, **options)


def test_a_frame_whose_tokens_the_grown_mask_all_covers_is_no_refusal_before_a_part(pipe):
    mask = np.zeros((9, 64, 64), np.uint8)
    mask[:5] = 255
    mask[5:] = corner()
    made = run(pipe, video=clip(9), mask=mask)
    assert np.array_equal(made[0, 5:, :40], clip(9)[5:, :40])


@given(seed=seeds, frames=st.sampled_from([1, 5, 9]))
def test_the_share_is_one_in_white_none_far_away_and_falls_in_between(pipe, seed, frames):
    draws = np.random.default_rng(seed)
    mask = np.zeros((frames, 64, 64), bool)
    t, y, x = (int(draws.integers(0, size)) for size in (frames, 64, 64))
    mask[t, y, x] = True
    pixels = torch.zeros(1, 3, frames, 64, 64)
    settings = read_plan(pipe.transformer, nova.GenerationPlan(frames=5, sets=2))
    edit = read_edit(pixels, mask, (0, 0, 0, 0), VAETokenizer(pipe.vae), settings)
    assert edit is not None
    assert edit.keep.shape == (5, 4, 4)
    assert not edit.keep[(frames + 3) // 4 :].any()
    share = edit.share[t]
    assert share[y, x] == 1
    rows = share[y, x:]  # away from the pixel
    assert (rows.diff() <= 1e-6).all()
    far = np.maximum(np.abs(np.arange(64)[:, None] - y), np.abs(np.arange(64) - x)) > TOKEN
    assert (share[torch.from_numpy(far)] == 0).all()
    with_share = edit.share.unflatten(1, (4, 16)).unflatten(3, (4, 16)).amax((2, 4)) > 0
    first = (t + 3) // 4
    assert not (with_share[t] & edit.keep[first]).any()  # only what is made anew is shown


def test_the_command_line_edits_a_video_and_a_picture(tmp_path, main):
    video = np.repeat(np.repeat(clip(6, side=16), 4, 1), 4, 2)
    write_video(video, tmp_path / "in.gif", fps=10)
    given_frames, rate = read_video(tmp_path / "in.gif")
    Image.fromarray(corner()).save(tmp_path / "mask.png")
    quick = ("--steps", "2", "--diffusion-steps", "2")
    words = ("edit", str(tmp_path / "in.gif"), "--prompt", SEVEN, *quick)
    masked = ("--mask", str(tmp_path / "mask.png"))
    main(*words, *masked, "--out", str(tmp_path / "out.gif"))
    frames, fps = read_video(tmp_path / "out.gif")
    assert frames.shape == (5, 64, 64, 3)  # of 6, which the tokenizer cannot make
    assert fps == rate
    near = (frames[:, :40].int() - given_frames[:5, :40].int()).abs().float().mean()
    assert near < 20  # the palette of 256 colours is another one
    picture = tmp_path / "in.png"
    Image.fromarray(video[0]).save(picture)
    main("edit", str(picture), *masked, "--out", str(tmp_path / "out.png"), *quick)
    with Image.open(tmp_path / "out.png") as out:
        assert np.array_equal(np.asarray(out)[:40], video[0, :40])
    main("edit", str(picture), "--canvas", "0", "16", "16", "0", "--frames", "5",
         "--out", str(tmp_path / "wide.gif"), *quick)  # fmt: skip
    assert read_video(tmp_path / "wide.gif")[0].shape == (5, 64, 64, 3)
    Image.fromarray(corner()[:32]).save(tmp_path / "half.png")
    for bad, said in (
        (("--mask", str(tmp_path / "half.png")), "mask: got '64 x 32 pixels'"),
        ((), "mask: got None"),
        (("--canvas", "64", "0", "0", "0"), "canvas: got"),
        (("--mask", str(tmp_path / "none.png")), "none.png"),
    ):
        with pytest.raises(SystemExit, match=said):
            main("edit", str(picture), *bad, "--out", str(tmp_path / "bad.png"))
    assert not (tmp_path / "bad.png").exists()
