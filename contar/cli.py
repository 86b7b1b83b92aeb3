"""The command line: `contar demo`, `contar info`."""

import logging
import time
from pathlib import Path

import tyro

logging.getLogger("xformers").setLevel(logging.ERROR)  # it reports kernels that are not needed


def demo(out: Path = Path("demo"), steps: int = 600, seed: int = 0) -> None:
    """Train the smallest NOVA for a minute and let it draw moving dots.

    Args:
        out: folder for the picture and the animation.
        steps: of training.
        seed: of training and generation.
    """
    from tqdm import tqdm

    from contar.media import save_gif, save_sheet
    from recipes import dots

    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with tqdm(total=steps, desc="training", unit="step") as bar:

        def show(step: int, loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()

        model = dots.train(steps, seed=seed, on_step=show)
    clips = dots.sample(model, seed=seed, progress=True)
    frames = (clips.clamp(-1, 1) + 1) / 2
    sheet = save_sheet(frames, out / "dots.png", labels=list(dots.DIRECTIONS))
    gif = save_gif(frames, out / "dots.gif", fps=2)
    seconds = time.monotonic() - start
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {seconds:.0f} s in all.")
    print(f"One row a word ({', '.join(dots.DIRECTIONS)}), one column a frame: {sheet}")
    print(f"The same, moving: {gif}")


def info(preset: tyro.conf.Positional[str] = "nova-d48w1024-osp480") -> None:
    """Print the parts of a preset: parameters, and memory of the weights by dtype.

    Args:
        preset: a name in `recipes.nova.PRESETS`.
    """
    from recipes import nova

    model = nova.build(preset, device="meta")
    sizes = model.sizes
    print(f"{preset}: latent {sizes.channels} x {sizes.latent[0]} x {sizes.latent[1]}")
    total = 0
    for name, part in model.named_children():
        count = sum(p.numel() for p in part.parameters())
        total += count
        print(f"  {name:10} {count:>13,}")
    total += model.begin.numel()
    print(f"  {'all':10} {total:>13,}")
    print(f"  weights: {total * 4 / 2**30:.2f} GiB in float32, {total * 2 / 2**30:.2f} in bfloat16")


def main() -> None:
    """Run the command line; a bad argument ends it with the message and exit status 1."""
    try:
        tyro.extras.subcommand_cli_from_dict({"demo": demo, "info": info}, prog="contar")
    except ValueError as error:
        raise SystemExit(f"contar: {error}") from None


if __name__ == "__main__":
    main()
