"""A whole pipeline in the released layout, beside it what the official pipeline made of it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nova_case import STEP, Errors, latents_bound, relative_error

from contar.conditioning import encode_texts
from contar.tokenizers import VAETokenizer
from recipes import nova

FRAMES = 1e-3  # share of values that may be off by more than 1 of 255


def check_checkpoint(folder: Path, device: str = "cpu") -> Iterator[tuple[str, Errors]]:
    description = json.loads(folder.with_suffix(".json").read_text())
    with np.load(folder.with_suffix(".npz")) as archive:
        arrays = dict(archive)
    heads = description["heads"]
    pipe = nova.from_pretrained(folder, num_heads=(heads[2], heads[5])).to(device)
    pipe.set_progress_bar_config(disable=True)
    yield "prompt_embeds", {"states": (_texts(pipe, description, arrays), STEP)}
    if "image" in arrays:
        pixels = torch.from_numpy(arrays["image"]).permute(2, 0, 1)[None, :, None].float()
        pixels = pixels.to(device)
        mean = VAETokenizer(pipe.vae).encode((pixels - 127.5) / 127.5)[:, :, 0].cpu()
        recorded = torch.from_numpy(arrays["image.latent_mean"])
        yield "image", {"latent_mean": (relative_error(mean, recorded), STEP)}
    for name in ("t2v", "t2i", "i2v"):
        if f"{name}.latents" in arrays:
            yield name, _generation(pipe, name, description, arrays)


def _texts(pipe: nova.NovaPipeline, description: dict[str, Any], z: dict[str, np.ndarray]) -> float:
    text, prompts = pipe.transformer.text, description["prompts"]
    words = [*prompts, *[""] * len(prompts)]
    states = encode_texts(words, pipe.tokenizer, pipe.text_encoder, length=text.length)
    return relative_error(text.pad(states).cpu(), torch.from_numpy(z["prompt_embeds"]))


def _generation(
    pipe: nova.NovaPipeline, name: str, d: dict[str, Any], z: dict[str, np.ndarray]
) -> Errors:
    recorded = torch.from_numpy(z[f"{name}.latents"])
    tokenizer = VAETokenizer(pipe.vae)

    def run(output_type: str) -> Any:
        return pipe(
            d["prompts"][: len(recorded)],
            image=z["image"] if name == "i2v" else None,
            num_frames=tokenizer.pixel_frames(recorded.shape[2]),
            height=recorded.shape[3] * tokenizer.space_stride,
            width=recorded.shape[4] * tokenizer.space_stride,
            num_inference_steps=d["steps"],
            num_diffusion_steps=d["diffusion_steps"],
            guidance_scale=d["guidance"],
            flow_shift=d.get("flow_shift"),
            motion_flow=d["motion_flow"],
            generator=torch.Generator().manual_seed(d["seed"]),
            output_type=output_type,
        ).frames

    sensitivity = d.get("sensitivity", 0.0)
    if isinstance(sensitivity, dict):
        sensitivity = sensitivity[name]
    bound = latents_bound(sensitivity)
    if bound is None:
        return {"runs": (0.0 if run("np").shape == z[f"{name}.frames"].shape else 1.0, 0.0)}
    ours, theirs = run("np").astype(int), z[f"{name}.frames"].astype(int)
    off = float((abs(ours - theirs) > 1).mean()) if ours.shape == theirs.shape else 1.0
    return {
        "latents": (relative_error(run("latent").cpu(), recorded), bound),
        "frames": (off, FRAMES),
    }
