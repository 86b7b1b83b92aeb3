"""A folder of tiny videos and pictures: some broken, some with a cut, some alike."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from contar.media import write_video


def moving(seed: int, count: int = 8, speed: int = 2, side: int = 48) -> np.ndarray:
    """Return frames of a texture that moves to the right, [t, h, w, 3]."""
    draws = np.random.default_rng(seed)
    coarse = draws.integers(0, 255, (6, 6 + count * speed // 8 + 1, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((8 * coarse.shape[1], side), Image.Resampling.BICUBIC)
    wide = np.asarray(picture)
    return np.stack([wide[:, speed * i : speed * i + side] for i in range(count)])


def lettered(seed: int) -> np.ndarray:
    """Return a still with large letters on it, [1, h, w, 3]."""
    picture = Image.fromarray(moving(seed, 1, side=96)[0]).resize((160, 96))
    ImageDraw.Draw(picture).rectangle((0, 30, 160, 70), fill="black")
    ImageDraw.Draw(picture).text((10, 32), "SUBSCRIBE", fill="white", font_size=26)
    return np.asarray(picture)[None]


def make_folder(folder: Path) -> Path:
    """Write twelve files: 7 videos of one shot, one of two, a picture, 3 that are broken."""
    (folder / "more").mkdir(parents=True)
    for number in range(5):
        write_video(moving(number, speed=number), folder / f"a{number}.mp4", fps=8)
    write_video(moving(2, speed=2), folder / "copy.mp4", fps=8)
    write_video(
        np.clip(moving(3, speed=3) + 2.0, 0, 255).astype(np.uint8), folder / "more/near.mp4", fps=8
    )
    cut = np.concatenate([moving(10, 8) // 4, 191 + moving(11, 8) // 4])
    write_video(cut, folder / "cut.mp4", fps=8)
    write_video(lettered(20), folder / "letters.png")
    whole = (folder / "a1.mp4").read_bytes()
    (folder / "short.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "no.jpg").write_bytes(b"no picture")
    for file in list(folder.rglob("*.*")):
        if file.suffix != ".txt" and file.stem != "a4":
            file.with_suffix(".txt").write_text(f"a texture, {file.stem}\n")
    return folder


def brightness(stills: list[np.ndarray]) -> float:
    """Return a score, as a user's function does."""
    return float(np.mean([still.mean() for still in stills]))


def described(stills: list[np.ndarray]) -> str:
    """Return a caption, as a user's function does."""
    return f"a picture of  {stills[0].shape[1]}\nx {stills[0].shape[0]}"


def nothing(stills: list[np.ndarray]) -> str:
    return " "
