"""Clips with captions: folders of files, caches of samples in shards."""

from contar.data.cache import Cache
from contar.data.captioned import PICTURES, VIDEOS, CaptionedFile, captioned_files, read_caption
from contar.data.shards import Entry, ShardedClip, clip_of, read_entries, shard_files
from contar.data.writing import Sample, join_shards, write_cache, write_shard

__all__ = [
    "PICTURES",
    "VIDEOS",
    "Cache",
    "CaptionedFile",
    "Entry",
    "Sample",
    "ShardedClip",
    "captioned_files",
    "clip_of",
    "join_shards",
    "read_caption",
    "read_entries",
    "shard_files",
    "write_cache",
    "write_shard",
]
