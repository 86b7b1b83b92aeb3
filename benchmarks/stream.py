"""How soon the first frame of a stream comes, and how far pieces are from the whole.

    python -m benchmarks.stream [--rounds 9] [--threads 2]

The times are of the shipped model's default video, in turns. The distances are of Open-Sora-Plan
VAEs of a small size with random weights: the mean of |piece - whole| over the whole's deviation.
"""

import argparse
import statistics

import numpy as np
import torch

from contar._timing import in_turn
from contar.tokenizers import OpenSoraVAE, VAETokenizer
from recipes import nova

PROMPT = "a seven moves to the left"


def first_frame(rounds: int) -> None:
    pipe = nova.from_pretrained("moving-digits", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)

    def stream():
        return pipe.stream(PROMPT, generator=torch.Generator().manual_seed(0))

    def whole() -> np.ndarray:
        return pipe(PROMPT, generator=torch.Generator().manual_seed(0)).frames[0]

    streamed = np.concatenate(list(stream()))
    print(f"largest difference of a pixel: {np.abs(streamed.astype(int) - whole()).max()} of 255")
    runs = {"call": whole, "first frame": lambda: next(stream()), "stream": lambda: list(stream())}
    seconds = in_turn(runs, device="cpu", rounds=rounds)
    for name, times in seconds.items():
        shares = [time / call for time, call in zip(times, seconds["call"], strict=True)]
        print(
            f"{name}: {statistics.median(times):.3f} s, {statistics.median(shares):.3f} of a call"
        )
        print("  each round:", " ".join(f"{share:.3f}" for share in shares))


def moving(frames: int) -> torch.Tensor:
    """A disc that goes over a slope, [1, 3, t, 32, 48]."""
    t, y, x = torch.meshgrid(*map(torch.arange, (frames, 32, 48)), indexing="ij")
    disc = torch.sigmoid(8 - (x - 8 - t).float().hypot(y - 16.0))
    return torch.stack([disc, x / 48, y / 32])[None] * 2 - 1


def distances(frames: int, seeds: int = 3) -> None:
    for seed in range(seeds):
        torch.manual_seed(seed)
        vae = OpenSoraVAE(block_out_channels=(32, 32, 32, 32), layers_per_block=1).eval()
        tokenizer = VAETokenizer(vae)
        latents = tokenizer.encode(moving(frames))
        whole = tokenizer.decode(latents)
        found = []
        for overlap in (1, 2, 3, 4):
            pieces, state = [], None
            for latent in latents.split(1, dim=2):
                piece, state = tokenizer.decode_next(latent, state, overlap=overlap)
                pieces.append(piece)
            found.append((torch.cat(pieces, dim=2) - whole).abs().mean() / whole.std())
        vae.tile_frames = None
        tiles = (tokenizer.decode(latents) - whole).abs().mean() / whole.std()
        row = " ".join(f"{float(value):.3f}" for value in found)
        print(f"{frames} frames, seed {seed}: overlap 1 to 4 {row}; tiles {tiles:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    first_frame(given.rounds)
    for frames in (17, 33):
        distances(frames)
