"""Offline: datasets become shards. Online: shards become episodes. These names are the door.

They are loaded when first used, so that `pipeline.build` needs no more than it uses.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pipeline import samplers
    from pipeline.build.builder import Report, Run, build_shards
    from pipeline.episodes import EpisodePlan, Sampler, Side, generator
    from pipeline.index import Dataset
    from pipeline.loader.episode import Chunk, Episode
    from pipeline.loader.loader import EpisodeLoader
    from pipeline.loader.stats import Stats
    from pipeline.records import ClassRecord, Encoding, Item, Recipe, Rejected, Survey
    from pipeline.shardset import ShardSet
    from pipeline.sources.base import Source
    from pipeline.store.fetch import RetryPolicy
    from pipeline.torch_datasets import ClassDataset, EpisodeDataset

__all__ = [
    "Chunk",
    "ClassDataset",
    "ClassRecord",
    "Dataset",
    "Encoding",
    "Episode",
    "EpisodeDataset",
    "EpisodeLoader",
    "EpisodePlan",
    "Item",
    "Recipe",
    "Rejected",
    "Report",
    "RetryPolicy",
    "Run",
    "Sampler",
    "ShardSet",
    "Side",
    "Source",
    "Stats",
    "Survey",
    "build_shards",
    "generator",
    "samplers",
]

_HOMES: Final = {
    "build.builder": ("Report", "Run", "build_shards"),
    "episodes": ("EpisodePlan", "Sampler", "Side", "generator"),
    "index": ("Dataset",),
    "loader.loader": ("EpisodeLoader",),
    "records": ("ClassRecord", "Encoding", "Item", "Recipe", "Rejected", "Survey"),
    "shardset": ("ShardSet",),
    "sources.base": ("Source",),
    "loader.episode": ("Chunk", "Episode"),
    "loader.stats": ("Stats",),
    "store.fetch": ("RetryPolicy",),
    "torch_datasets": ("ClassDataset", "EpisodeDataset"),
}


if not TYPE_CHECKING:  # a type checker sees the imports above, and every other name as an error

    def __getattr__(name: str) -> object:
        for module, names in _HOMES.items():
            if name in names:
                return getattr(import_module(f"pipeline.{module}"), name)
        if name == "samplers":
            return import_module("pipeline.samplers")
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
