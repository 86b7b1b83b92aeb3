"""An independent judge of digits: rapidocr, a reader of text that knows nothing of contar."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from contar._errors import check_count
from contar._typing import Int, Tensor, UInt8
from contar.media import check_pixels
from recipes.moving_digits.judges.judge import NONE, majority
from recipes.moving_digits.judges.mass import brightness, centres, windows

_MARGIN = 8  # pixels of white around the window of 28
_SIDE = 48  # the height at which the reader reads


def _model() -> Path:
    """Return the recognition model in rapidocr's folder; the detector is not needed."""
    spec = importlib.util.find_spec("rapidocr")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError('rapidocr is not installed (pip install "contar[eval]")')
    folder = Path(spec.submodule_search_locations[0]) / "models"
    found = sorted(folder.glob("*_rec_*.onnx"))
    if not found:
        raise FileNotFoundError(
            f"rapidocr: got no *_rec_*.onnx in {folder}, "
            "allowed: a version whose wheel carries its models, as 3.10 does"
        )
    return found[0]


class Reader:
    """Reads the digit of a frame, as black on white, 48 pixels high, without detection of text.

    What it reads is a digit only if it is exactly that: one numeral, no letter that looks like it.
    It runs offline on one thread, with the model that rapidocr's wheel carries; 25 ms a frame.

    Args:
        frames: of a clip that `majority` reads, evenly spread.

    Raises:
        ImportError: rapidocr or onnxruntime is not installed.
        FileNotFoundError: rapidocr is there without its model.
        ValueError: fewer frames than 1.
    """

    def __init__(self, *, frames: int = 5) -> None:
        self.frames = check_count("frames", frames)
        model = _model()
        self.name = f"rapidocr {model.stem}"
        try:
            import onnxruntime  # noqa: F401 - which rapidocr itself would miss at the first read
            from rapidocr import RapidOCR
        except ImportError as error:
            raise ImportError(f'{error} (pip install "contar[eval]")') from error
        threads = "EngineConfig.onnxruntime.{}_op_num_threads"
        self._read = RapidOCR(
            params={
                "Global.log_level": "critical",
                "Rec.model_path": str(model),  # named, it is never looked for elsewhere
                **{threads.format(kind): 1 for kind in ("intra", "inter")},
            }
        )

    def digits(self, frames: UInt8[Tensor, "n h w 3"]) -> Int[Tensor, " n"]:
        """Return the digit of each frame, -1 where none is read.

        Raises:
            ValueError: no uint8 [n, h, w, 3].
        """
        grey = brightness(check_pixels("frames", frames, "[n, h, w, 3]").cpu())
        centre = centres(grey)
        seen = ~centre[:, 0].isnan()
        ink = (255 * windows(grey, centre)).round().byte().numpy()
        read = [self._digit(ink[i]) if seen[i] else NONE for i in range(len(ink))]
        return torch.tensor(read, dtype=torch.int64, device="cpu")

    def majority(self, clips: UInt8[Tensor, "b t h w 3"]) -> Int[Tensor, " b"]:
        """Return the digit read in more than half of the frames that are looked at, or -1.

        Raises:
            ValueError: no uint8 [b, t, h, w, 3].
        """
        count = check_pixels("clips", clips, "[b, t, h, w, 3]").shape[1]
        places: Any = {"dtype": torch.float32, "device": clips.device}
        chosen = torch.linspace(0, max(count - 1, 0), min(self.frames, count), **places)
        clips = clips[:, chosen.round().long()]
        return majority(self.digits(clips.flatten(0, 1)).view(clips.shape[:2]))

    def _digit(self, ink: np.ndarray) -> int:
        page = np.pad(255 - ink, _MARGIN, constant_values=255)
        page = Image.fromarray(page).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        result = self._read(
            np.asarray(page.convert("RGB")), use_det=False, use_cls=False, use_rec=True
        )
        text = (getattr(result, "txts", None) or ("",))[0].strip()
        return int(text) if text in tuple("0123456789") else NONE
