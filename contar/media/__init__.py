"""Videos, pictures and animations: read from files, written to them, measured."""

from contar.media.decoding import Video, glance_video, open_video
from contar.media.motion import motion_score
from contar.media.picture import fit_frames, glance_image, read_image, to_rgb
from contar.media.pixels import check_pixels, frames_to_pixels, pixels_to_frames
from contar.media.sheet import save_sheet, side_by_side
from contar.media.video import check_output, read_tail, read_video, write_video

__all__ = [
    "Video",
    "check_output",
    "check_pixels",
    "fit_frames",
    "frames_to_pixels",
    "glance_image",
    "glance_video",
    "motion_score",
    "open_video",
    "pixels_to_frames",
    "read_image",
    "read_tail",
    "read_video",
    "save_sheet",
    "side_by_side",
    "to_rgb",
    "write_video",
]
