"""Arguments are checked at the doors: behind one, hardly a check is called."""

import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from recipes import nova

ROOT = Path(__file__).parents[1]


def test_a_guided_video_takes_no_more_than_200_calls_of_checks():
    """2 frames, 4 sets, 3 diffusion steps: 1,831 calls where each hop checks its arguments."""
    folder = Path(__file__).parent / "goldens/checkpoint"
    pipe = nova.from_pretrained(folder, num_heads=(2, 2))
    pipe.set_progress_bar_config(disable=True)
    sizes, calls = pipe.transformer.sizes, Counter[str]()
    text = torch.randn(1, sizes.text_length, sizes.text_width)

    def count(frame: FrameType, event: str, _: object) -> None:
        name, file = frame.f_code.co_name, Path(frame.f_code.co_filename)
        if event == "call" and name.lstrip("_").startswith("check") and ROOT in file.parents:
            calls[name] += "site-packages" not in file.parts

    options: Any = {"num_frames": 5, "num_inference_steps": 4, "num_diffusion_steps": 3}
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        pipe(prompt_embeds=text, guidance_scale=5.0, output_type="latent", **options)
    finally:
        sys.setprofile(before)
    assert 50 < calls.total() <= 200, calls
