"""Clips with captions: folders of files, caches of samples in shards."""

from contar.data.cache import Cache, Sample, join_shards, write_cache, write_shard
from contar.data.captioned import (
    PICTURES,
    VIDEOS,
    CaptionedFile,
    captioned_files,
    read_caption,
)

__all__ = [
    "PICTURES",
    "VIDEOS",
    "Cache",
    "CaptionedFile",
    "Sample",
    "captioned_files",
    "join_shards",
    "read_caption",
    "write_cache",
    "write_shard",
]
