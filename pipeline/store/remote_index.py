"""Open a URL: the manifest and the index of each dataset come into the cache, checked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.index import Dataset, Manifest
from pipeline.layout import Layout, write_whole
from pipeline.store.fetch import Fetcher, NotThere, Origin


@dataclass(frozen=True, slots=True)
class Brought:
    """A dataset whose shards stay where they are; its root is a folder of the cache."""

    dataset: Dataset
    origin: Origin


def default_cache() -> Path:
    """Where bytes from elsewhere are kept unless the user says otherwise."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home else Path.home() / ".cache") / "lite-shards" / "remote"


def open_remote(
    url: str, cache: Path, fetcher: Fetcher, options: Mapping[str, Any]
) -> list[Brought]:
    """Every dataset behind a URL: itself one, or a folder of them. Raises PipelineError."""
    origin = _origin(url, options)
    itself = _brought(fetcher, origin, cache)
    if itself:
        return [itself]
    folders = fetcher.folders(origin)
    found = [brought for folder in folders if (brought := _brought(fetcher, folder, cache))]
    if not found:
        raise SourceMissing(
            f"{origin} is neither a dataset (it has no dataset.json) nor a listing of folders that "
            "are; name one dataset, or give a list of URLs with one dataset each"
        )
    return found


def _origin(url: str, options: Mapping[str, Any]) -> Origin:
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise UsageError(f"{url} needs fsspec: pip install -e '.[remote]'") from error
    if url.startswith(("http://", "https://")):  # a range of a compressed answer is of no use
        headers = {"Accept-Encoding": "identity", **options.get("headers", {})}
        options = {**options, "headers": headers}
    try:
        return Origin(*url_to_fs(url, **options))
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"{url} cannot be opened: {error}; pip install -e '.[remote]' brings http"
        ) from error


def _brought(fetcher: Fetcher, origin: Origin, cache: Path) -> Brought | None:
    """None if there is no dataset. The index is fetched again only when it has changed."""
    digest = hashlib.sha256(str(origin).encode()).hexdigest()
    root = cache / f"{origin.path.rstrip('/').rpartition('/')[2]}-{digest[:16]}"
    layout = Layout(root)
    try:
        fetcher.whole(origin.at(layout.manifest.name), lambda data: _manifest_fault(data, layout))
    except NotThere:
        _refuse_unfinished(fetcher, origin)
        return None
    wanted = Manifest.read(layout.manifest).index_sha256
    if not layout.index.exists() or _sha256(layout.index.read_bytes()) != wanted:
        data = fetcher.whole(
            origin.at(layout.index.name),
            lambda data: "" if _sha256(data) == wanted else "its sha256 is not the manifest's",
        )
        write_whole(layout.index, data)
    return Brought(Dataset.open(root), origin)


def _manifest_fault(data: bytes, layout: Layout) -> str:
    """Keep it and read it; what is wrong with it."""
    layout.root.mkdir(parents=True, exist_ok=True)
    write_whole(layout.manifest, data)
    try:
        Manifest.read(layout.manifest)
    except IntegrityError as error:
        return str(error)
    return ""


def _refuse_unfinished(fetcher: Fetcher, origin: Origin) -> None:
    try:
        fetcher.folders(origin.at(".build"))
    except SourceMissing:
        return
    raise SourceMissing(
        f"{origin} is a build that has not finished (it has .build and no dataset.json); finish it, "
        "then copy dataset.json last"
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
