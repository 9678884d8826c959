"""A shard set: one dataset or a folder of datasets, on a local disk or behind a URL (`--shards`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.errors import SourceMissing, UsageError, first_few
from pipeline.index import Dataset, dataset_folders, lost_folders
from pipeline.store.fetch import RemoteFetcher, RemotePath, RetryPolicy
from pipeline.store.local import LocalStore, SampleStore, check_tars
from pipeline.store.mapped import MappedStore
from pipeline.store.remote import RemoteSettings, RemoteStore
from pipeline.store.remote_index import default_cache, open_remote

CACHE_BYTES: Final = 20 * 2**30


@dataclass(frozen=True, slots=True)
class ShardSet:
    """Complete datasets by name, sorted."""

    root: str
    """What was opened."""
    datasets: Mapping[str, Dataset]
    remote: RemoteSettings | None = None
    """How to read the datasets behind URLs; None if there are none."""

    @classmethod
    def open(
        cls,
        path: str | Path | Sequence[str | Path],
        *,
        cache: str | Path | None = None,
        cache_bytes: int = CACHE_BYTES,
        options: Mapping[str, Any] | None = None,
        patience: RetryPolicy | None = None,
    ) -> ShardSet:
        """Open every dataset below a path or a URL, or below several.

        A dataset that is unfinished or of another format is an error; none is left out. For a URL
        (s3://, gs://, https:// and whatever else fsspec knows, with its `options`), manifest and index
        are downloaded into the folder `cache`, and later the parts of the shards that episodes need,
        `cache_bytes` at most. `patience` says how long to wait for a server and how often to ask again.
        """
        patience = patience or RetryPolicy()
        roots = [str(path)] if isinstance(path, str | Path) else [str(root) for root in path]
        cache_folder = Path(cache).resolve() if cache is not None else default_cache()
        datasets: list[Dataset] = []
        origins: dict[str, RemotePath] = {}
        for root in roots:
            if "://" not in root:
                datasets += _open_all(Path(root))
                continue
            for opened in open_remote(root, cache_folder, RemoteFetcher(patience), options or {}):
                datasets.append(opened.dataset)
                origins[str(opened.dataset.root)] = opened.origin
        remote = RemoteSettings(origins, cache_folder, cache_bytes, patience) if origins else None
        return cls(", ".join(roots), _index_by_name(datasets), remote)

    def __repr__(self) -> str:
        return f"<ShardSet {self.root}: {first_few([*self.datasets])}>"

    def __iter__(self) -> Iterator[Dataset]:
        return iter(self.datasets.values())

    def __len__(self) -> int:
        return len(self.datasets)

    def __getitem__(self, name: str) -> Dataset:
        if name not in self.datasets:
            raise UsageError(f"{self.root} has no dataset {name!r}; it has {', '.join(self.datasets)}")
        return self.datasets[name]

    def with_split(self, split: str) -> list[str]:
        """The names of the datasets that have images of this split; all names for ""."""
        return [d.manifest.name for d in self if not split or d.manifest.splits.get(split)]

    def check_tars(self, size: int) -> None:
        """Raise SourceMissing or IntegrityError if a local tar of this size is gone or of another length."""
        for dataset in self:
            if self.remote is None or str(dataset.root) not in self.remote.origins:
                check_tars(dataset, size)

    def open_store(self, *, mapped: bool = False) -> SampleStore:
        """Open a store that reads these datasets' samples; close it after use.

        mapped: read from mappings of the shards, which is faster; see `EpisodeLoader`.
        """
        if self.remote is None:
            return MappedStore() if mapped else LocalStore()
        if mapped:
            raise UsageError(
                f"{self.root} has datasets behind a URL, whose shards come in parts and may go again; "
                "only local shards can be mapped: leave mapped=True away, or copy the shards here"
            )
        return RemoteStore(self.remote)


def _open_all(root: Path) -> list[Dataset]:
    folders = dataset_folders(root)
    for lost in lost_folders(root):
        raise SourceMissing(
            f"{lost} holds shards and no dataset.json, so it was not copied to its end, or has lost it; "
            "copy it again, or move it out of this folder to do without it"
        )
    return [Dataset.open(folder) for folder in folders]


def _index_by_name(datasets: Iterable[Dataset]) -> Mapping[str, Dataset]:
    by_name: dict[str, Dataset] = {}
    for dataset in datasets:
        other = by_name.setdefault(dataset.manifest.name, dataset)
        if other is not dataset:
            raise UsageError(
                f"{other.root} and {dataset.root} both are a dataset {dataset.manifest.name}; "
                "keep one of them in this folder"
            )
    return dict(sorted(by_name.items()))
