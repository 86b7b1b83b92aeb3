"""The command line of the demonstration."""

import time
from pathlib import Path

from recipes._cli.pipes import check_replaced, seeded


def demo(out: Path = Path("demo"), seed: int = 0) -> None:
    """Let the model that contar carries make a video of handwritten digits for each of 8 prompts.

    Args:
        out: folder for the video, the animation and the contact sheet.
        seed: of all that is random.
    """
    print("Loading moving-digits, the model that contar carries, and its text encoder.", flush=True)
    import torch

    from contar._errors import bad
    from contar.media import save_sheet, side_by_side, write_video
    from recipes import nova
    from recipes.moving_digits import PROMPTS

    draws = seeded(seed)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise bad("out", str(out), f"a folder that can be made ({error.strerror})") from None
    for suffix in (".mp4", ".gif", ".png"):
        check_replaced(out / f"moving-digits{suffix}")
    pipe = nova.from_pretrained("moving-digits", dtype=torch.float32)
    length, fps = (pipe.config["defaults"][name] for name in ("num_frames", "fps"))
    print(f"Making {len(PROMPTS)} videos of {length} frames, from a sentence each.", flush=True)
    start = time.monotonic()
    pipe.set_progress_bar_config(desc=f"{len(PROMPTS)} videos", unit="set")
    clips = pipe(list(PROMPTS), generator=draws, output_type="pt").frames.transpose(1, 2)
    print(f"That took {time.monotonic() - start:.1f} s. Writing them with their sentences.")
    tiled = side_by_side(clips, labels=PROMPTS, columns=4, least=192)
    video = write_video(tiled, out / "moving-digits.mp4", fps=fps)
    animation = write_video(tiled, out / "moving-digits.gif", fps=fps)
    shown = range(0, length, 4)
    columns = [f"frame {t + 1}" + ", the last" * (t + 1 == length) for t in shown]
    picture, few = out / "moving-digits.png", clips[:, :, :: shown.step]
    sheet = save_sheet(few, picture, labels=PROMPTS, columns=columns, least=128)
    print(f"A row a sentence, a column every fourth frame: {sheet}")
    print(f"All of them, moving: {video} and {animation}")
    print("It knows one digit (zero to nine, 0 to 9) and where it moves, or that it stands still.")
    print('Your own: contar generate "a seven moves to the left" --out seven.mp4')
