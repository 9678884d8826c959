"""A shard set of six pictures, and a look at a changed copy of it with everything that opens one."""

from __future__ import annotations

import atexit
import io
import shutil
import tempfile
from contextlib import closing, redirect_stdout, suppress
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from pipeline.build.builder import Run, build_shards
from pipeline.errors import IntegrityError, PipelineError
from pipeline.index import Dataset, DatasetManifest, dataset_folders
from pipeline.records import Encoding, Recipe
from pipeline.shardset import ShardSet
from pipeline.show.__main__ import main as show
from pipeline.show.stored_images import read_images
from pipeline.sources.folder import FolderSource
from pipeline.store.local import LocalStore
from pipeline.verify.__main__ import verify
from tests.images import fill_class_folders

ENCODINGS: Final = {8: "raw", 12: "png", 16: "jpeg:95"}  # by size


@cache
def recorded_set() -> Path:
    """The set as it was built, with the records of the build."""
    root = Path(tempfile.mkdtemp(prefix="fuzz-set-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    source = FolderSource(name="pets", root=fill_class_folders(root / "pictures", {"cat": 4, "dog": 2}))
    encodings = tuple(map(Encoding.parse, ENCODINGS.values()))
    recipe = Recipe(sizes=tuple(ENCODINGS), encodings=encodings, shard_samples=4)
    build_shards(source, root / "pets", recipe, Run(workers=1))
    return root / "pets"


@cache
def whole_set() -> Path:
    """The set without the records of the build, as one that was passed on."""
    ignored = shutil.ignore_patterns(".build")
    return Path(shutil.copytree(recorded_set(), recorded_set().with_name("whole"), ignore=ignored))


@cache
def changed_set(target: str) -> Path:
    """The copy that a target changes; what it changes, it writes again for each input."""
    return Path(shutil.copytree(whole_set(), whole_set().with_name(target)))


@cache
def whole_manifest() -> DatasetManifest:
    return DatasetManifest.read(whole_set() / "dataset.json")


def write_manifest(root: Path, **changes: Any) -> None:
    """Give a changed set a manifest with a right checksum and these values."""
    manifest = replace(whole_manifest(), **changes)
    (root / "dataset.json").write_text(manifest.text(), encoding="utf-8")


def write_index(root: Path, data: bytes, **changes: Any) -> None:
    """Give a changed set an index, and the manifest that belongs to it."""
    (root / "index.parquet").write_bytes(data)
    write_manifest(root, index_sha256=sha256(data).hexdigest(), **changes)


def look_at_set(root: Path) -> None:
    """Open, show and check a changed set: any error but a documented one is a find."""
    try:
        shards = ShardSet.open(root)
    except PipelineError:
        pass
    else:
        for dataset in shards:
            check_dataset_values(dataset)
        _show(root)
    assert dataset_folders(root) == [root]
    verify(root, workers=1)


def look_at_pictures(root: Path) -> None:
    """Read and decode all pictures of a changed set, then verify it."""
    dataset = Dataset.open(root)
    with closing(LocalStore()) as store:
        for size in ENCODINGS:
            for row in range(len(dataset.index)):
                with suppress(IntegrityError):
                    (image,) = read_images(store, dataset, size, [row])
                    assert image.size == (size, size)
    verify(root, workers=1)


def check_dataset_values(dataset: Dataset) -> None:
    """What every reader of a dataset that opened relies on."""
    manifest, index = dataset.manifest, dataset.index
    assert 0 < len(index) == manifest.samples
    assert index.class_starts[0] == 0
    assert index.class_starts[-1] == len(index)
    assert all(
        0 <= codes.min() <= codes.max() < len(index.words[name])
        for name in index.words
        for codes in [index[name]]
    )
    for size in manifest.recipe.sizes:
        for shard, offset, length in zip(
            index["shard"], index[f"offset_{size}"], index[f"length_{size}"], strict=True
        ):
            assert 0 <= offset < offset + length <= manifest.tar_bytes(size)[int(shard)]


def _show(root: Path) -> None:
    page, sheet = root.with_name("page.html"), root.with_name("sheet.png")
    for options in (["--html", str(page), "--samples", "2"], ["--png", str(sheet), "--json"]):
        with redirect_stdout(io.StringIO()), suppress(PipelineError):
            show([str(root), *options])
