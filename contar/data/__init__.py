"""Clips with captions: folders of files, caches of samples in shards."""

from contar.data.cache import Cache, Sample, write_cache
from contar.data.captioned import CaptionedFile, captioned_files

__all__ = ["Cache", "CaptionedFile", "Sample", "captioned_files", "write_cache"]
