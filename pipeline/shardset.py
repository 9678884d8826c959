"""What `--shards` names: one dataset, or a folder of datasets, here or behind a URL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.errors import UsageError
from pipeline.index import Dataset, dataset_folders
from pipeline.store.fetch import Fetcher, Origin, Patience
from pipeline.store.local import LocalStore, Store
from pipeline.store.mapped import MappedStore
from pipeline.store.remote import Remote, RemoteStore
from pipeline.store.remote_index import default_cache, open_remote

CACHE_BYTES: Final = 20 * 2**30  # bytes


@dataclass(frozen=True, slots=True)
class ShardSet:
    """Complete datasets by name, sorted."""

    root: str
    """What was opened."""
    datasets: Mapping[str, Dataset]
    remote: Remote | None = None
    """How to get at those that are not here."""

    @classmethod
    def open(
        cls,
        path: str | Path | Sequence[str | Path],
        *,
        cache: str | Path | None = None,
        cache_bytes: int = CACHE_BYTES,
        options: Mapping[str, Any] | None = None,
        patience: Patience | None = None,
    ) -> ShardSet:
        """Open every dataset below a path or a URL, or below several.

        An unfinished or foreign dataset is an error, not a gap. For a URL (s3://, gs://, https:// and
        whatever else fsspec knows, with its `options`), manifest and index come into the folder
        `cache`, and later the parts of the shards that episodes need, `cache_bytes` at most.
        """
        patience = patience or Patience()
        places = [path] if isinstance(path, str | Path) else list(path)
        kept = Path(cache).resolve() if cache is not None else default_cache()
        datasets: list[Dataset] = []
        origins: dict[str, Origin] = {}
        for place in map(str, places):
            if "://" not in place:
                datasets += [Dataset.open(folder) for folder in dataset_folders(Path(place))]
                continue
            for brought in open_remote(place, kept, Fetcher(patience), options or {}):
                datasets.append(brought.dataset)
                origins[str(brought.dataset.root)] = brought.origin
        remote = Remote(origins, kept, cache_bytes, patience) if origins else None
        return cls(", ".join(map(str, places)), _by_name(datasets), remote)

    def __iter__(self) -> Iterator[Dataset]:
        return iter(self.datasets.values())

    def __len__(self) -> int:
        return len(self.datasets)

    def __getitem__(self, name: str) -> Dataset:
        if name not in self.datasets:
            raise UsageError(
                f"{self.root} has no dataset {name!r}; it has {', '.join(self.datasets)}"
            )
        return self.datasets[name]

    def with_split(self, split: str) -> list[str]:
        """The datasets that have images of this split; all of them for ""."""
        return [d.manifest.name for d in self if not split or d.manifest.splits.get(split)]

    def open_store(self, *, mapped: bool = False) -> Store:
        """Where the bytes of these datasets come from; close it after use.

        mapped: from mappings of the shards, which is faster; see `EpisodeLoader`.
        """
        if self.remote is None:
            return MappedStore() if mapped else LocalStore()
        if mapped:
            raise UsageError(
                f"{self.root} has datasets behind a URL, whose shards come in parts and may go again; "
                "only local shards can be mapped: leave mapped=True away, or copy the shards here"
            )
        return RemoteStore(self.remote)


def _by_name(opened: Iterable[Dataset]) -> Mapping[str, Dataset]:
    datasets: dict[str, Dataset] = {}
    for dataset in opened:
        other = datasets.setdefault(dataset.manifest.name, dataset)
        if other is not dataset:
            raise UsageError(
                f"{other.root} and {dataset.root} both are a dataset {dataset.manifest.name}; "
                "keep one of them in this folder"
            )
    return dict(sorted(datasets.items()))
