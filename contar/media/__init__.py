"""Pictures and animations of frames, written to files."""

from contar.media.sheet import save_gif, save_sheet

__all__ = ["save_gif", "save_sheet"]
