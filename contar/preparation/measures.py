"""What pixels tell of a shot: how much moves, how much of it is text."""

import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from contar._typing import UInt8
from contar.media import motion_score
from contar.preparation.step import Step


class Motion(Step):
    """The mean length of the optical flow, in pixels per frame: `motion_score` of the pairs.

    A picture, and a shot of one frame, has none.
    """

    name = "motion"
    adds = ("motion",)

    def score(self, shot: dict[str, Any]) -> None:
        """Measure a shot's pairs."""
        scores = [motion_score(pair) for pair in shot.get("pairs", [])]
        shot["motion"] = float(np.mean(scores)) if scores else None


class TextArea(Step):
    """The share of the picture in boxes around text, from 0 to 1: the mean of a shot's stills.

    Raises:
        ImportError: rapidocr or onnxruntime is not installed.
        FileNotFoundError: rapidocr is there without its model.
    """

    name = "text_area"
    adds = ("text_area",)

    def score(self, shot: dict[str, Any]) -> None:
        """Measure a shot's stills."""
        shot["text_area"] = float(np.mean([text_share(still) for still in shot["stills"]]))


def text_share(picture: UInt8[np.ndarray, "h w 3"]) -> float:
    """Return the share of a picture, RGB, that lies in boxes around text, as rapidocr finds it."""
    import cv2

    bgr = np.ascontiguousarray(picture[..., ::-1])
    boxes = _detector()(bgr, use_det=True, use_cls=False, use_rec=False).boxes
    if boxes is None or not len(boxes):
        return 0.0
    inside = np.zeros(picture.shape[:2], np.uint8)  # boxes may overlap
    for box in boxes:
        cv2.fillPoly(inside, [np.asarray(box).round().astype(np.int32)], 1)
    return float(inside.mean(dtype=np.float64))


@functools.lru_cache(maxsize=1)
def _detector() -> Any:
    """Return rapidocr with the detector that its wheel carries, on one thread."""
    spec = importlib.util.find_spec("rapidocr")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError('rapidocr is not installed (pip install "contar[scale]")')
    models = Path(spec.submodule_search_locations[0]) / "models"
    found = sorted(models.glob("*_det_*.onnx"))
    if not found:
        allowed = "a version whose wheel carries its models, as 3.10 does"
        raise FileNotFoundError(f"rapidocr: got no *_det_*.onnx in {models}, allowed: {allowed}")
    try:
        import onnxruntime  # noqa: F401 - which rapidocr itself would miss at the first picture
        from rapidocr import RapidOCR
    except ImportError as error:
        raise ImportError(f'{error} (pip install "contar[scale]")') from error
    return RapidOCR(
        params={
            "Global.log_level": "critical",
            "Det.model_path": str(found[0]),  # named, it is never looked for elsewhere
            "Det.limit_type": "max",  # small pictures stay small
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )
