"""Offline: datasets become shards. Online: shards become episodes. These names are the door.

They are loaded when first used, so that `pipeline.build` needs no more than it uses.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pipeline.builder import Report, Run, build_shards
    from pipeline.index import Dataset, ShardSet
    from pipeline.records import ClassRecord, Encoding, Item, Recipe, Rejected, Survey
    from pipeline.sources.base import Source

__all__ = [
    "ClassRecord",
    "Dataset",
    "Encoding",
    "Item",
    "Recipe",
    "Rejected",
    "Report",
    "Run",
    "ShardSet",
    "Source",
    "Survey",
    "build_shards",
]

_HOMES: Final = {
    "builder": ("Report", "Run", "build_shards"),
    "index": ("Dataset", "ShardSet"),
    "records": ("ClassRecord", "Encoding", "Item", "Recipe", "Rejected", "Survey"),
    "sources.base": ("Source",),
}


if not TYPE_CHECKING:  # a type checker sees the imports above, and every other name as an error

    def __getattr__(name: str) -> object:
        for module, names in _HOMES.items():
            if name in names:
                return getattr(import_module(f"pipeline.{module}"), name)
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
