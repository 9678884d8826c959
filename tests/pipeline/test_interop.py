"""The shards are plain: what others write readers for reads them back unchanged, none of our code in between."""

from __future__ import annotations

import gc
import io
import json
import subprocess
import sys
import tarfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pytest
from PIL import Image

from pipeline.build.builder import Run, build_shards
from pipeline.build.images import encode_sizes
from pipeline.build.plan import read_shard
from pipeline.records import Encoding, Recipe
from pipeline.sources.folder import FolderSource

EXTENSIONS: Final = {32: "npy", 48: "png", 64: "jpg"}
RECIPE: Final = Recipe(
    sizes=tuple(EXTENSIONS), encodings=tuple(map(Encoding.parse, ("raw", "png", "jpeg:95"))), shard_samples=5
)
CLASSES: Final = ("ant", "bee & cell", "zébra")
each_size = pytest.mark.parametrize("size", EXTENSIONS)


class ExpectedSample(NamedTuple):
    """The sample that every reader must find, in this order."""

    key: str
    class_id: int
    image: bytes
    metadata: dict[str, object]


@dataclass(frozen=True)
class BuiltShards:
    root: Path
    samples: dict[int, list[ExpectedSample]]

    def tars(self, size: int) -> list[str]:
        return sorted(str(path) for path in (self.root / str(size)).glob("*.tar"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> BuiltShards:
    """Eighteen images in four shards, and the samples expected in them, made from the images again."""
    folder = tmp_path_factory.mktemp("interop")
    source, out = folder / "images", folder / "shards"
    for class_id, name in enumerate(CLASSES):
        (source / name).mkdir(parents=True)
        for number in range(6):
            noise = Image.effect_noise((90 + number, 70), 40 + 20 * class_id)
            noise.convert("RGB").save(source / name / f"a.b {number}.jpg")
    report = build_shards(FolderSource(name="toy", root=source), out, RECIPE, Run(workers=1))
    samples: dict[int, list[ExpectedSample]] = {size: [] for size in EXTENSIONS}
    for shard in range(report.plan.shards):
        planned = read_shard(out / ".build" / "plan.parquet", shard)
        for key, item in enumerate(planned.items, start=planned.first_key):
            metadata: dict[str, object] = {
                "name": item.name, "class_name": CLASSES[item.class_id], "class_id": item.class_id,
                "split": "", "group": "", "user": "", "kind": "", "frame": -1,
            }  # fmt: skip
            encoded = encode_sizes((source / item.file).read_bytes(), item, RECIPE).sizes
            for size, data in zip(EXTENSIONS, encoded, strict=True):
                samples[size].append(ExpectedSample(f"{key:09d}", item.class_id, data, metadata))
    return BuiltShards(out, samples)


def pixels(data: bytes, extension: str) -> np.ndarray[Any, Any]:
    if extension == "npy":
        return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
    return np.asarray(Image.open(io.BytesIO(data)))


def read_by_webdataset(shards: str | list[str], *decoders: str) -> list[dict[str, Any]]:
    """All samples. webdataset leaves its files open for the garbage collector, which may warn of it."""
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        dataset = webdataset.WebDataset(shards, shardshuffle=False)
        samples = list(dataset.decode(*decoders) if decoders else dataset)
        del dataset
        gc.collect()
    return samples


@each_size
def test_webdataset_reads_the_bytes_that_were_made(shards: BuiltShards, size: int) -> None:
    last = len(shards.tars(size)) - 1
    found = [
        ExpectedSample(s["__key__"], int(s["cls"]), s[EXTENSIONS[size]], json.loads(s["json"]))
        for s in read_by_webdataset(f"{shards.root}/{size}/shard-{{000000..{last:06d}}}.tar")
    ]
    assert found == shards.samples[size]


@each_size
def test_webdataset_decodes_every_member_by_its_own_rules(shards: BuiltShards, size: int) -> None:
    decoded = read_by_webdataset(shards.tars(size), "pil")
    assert len(decoded) == len(shards.samples[size])
    for sample, wanted in zip(decoded, shards.samples[size], strict=True):
        assert (sample["cls"], sample["json"]) == (wanted.class_id, wanted.metadata)
        image = np.asarray(sample[EXTENSIONS[size]])
        np.testing.assert_array_equal(image, pixels(wanted.image, EXTENSIONS[size]))


@each_size
def test_wids_finds_any_sample_by_its_number(shards: BuiltShards, size: int) -> None:
    wids = pytest.importorskip("wids", reason="wids is not installed; it needs Linux or macOS")
    folder = shards.root / str(size)
    dataset = wids.ShardListDataset(
        str(folder / "wids.json"), cache_dir=str(folder), keep=True, transformations=[]
    )
    assert len(dataset) == len(shards.samples[size])
    before = sorted(folder.iterdir())
    for number in (17, 0, 5, 4, 11):  # across the shards and back
        sample, wanted = dataset[number], shards.samples[size][number]
        members = {name: stream.read() for name, stream in sample.items() if name[0] == "."}
        found = ExpectedSample(
            sample["__key__"], int(members[".cls"]), members["." + EXTENSIONS[size]],
            json.loads(members[".json"]),
        )  # fmt: skip
        assert found == wanted
    assert sorted(folder.iterdir()) == before


@each_size
@pytest.mark.parametrize("indexed", [True, False], ids=["our idx", "no idx"])
def test_dali_reads_the_bytes_with_and_without_our_index(
    shards: BuiltShards, size: int, *, indexed: bool
) -> None:
    dali = pytest.importorskip("nvidia.dali", reason="DALI is not installed; it needs Linux")
    tars, count = shards.tars(size), len(shards.samples[size])
    indices = {"index_paths": [tar.removesuffix("tar") + "idx" for tar in tars]} if indexed else {}
    pipe = dali.Pipeline(batch_size=count, num_threads=1, device_id=None)
    with pipe:
        outputs = dali.fn.readers.webdataset(
            paths=tars, ext=[EXTENSIONS[size], "cls", "json"],
            missing_component_behavior="error", name="reader", **indices,
        )  # fmt: skip
        pipe.set_outputs(*outputs)
    pipe.build()
    columns = [[np.asarray(entry).tobytes() for entry in column] for column in pipe.run()]
    assert pipe.reader_meta("reader")["epoch_size"] == count
    found = [
        (int(class_id), image, json.loads(metadata))
        for image, class_id, metadata in zip(*columns, strict=True)
    ]
    assert found == [sample[1:] for sample in shards.samples[size]]


@each_size
def test_our_index_is_the_one_that_dalis_own_tool_writes(
    shards: BuiltShards, size: int, tmp_path: Path
) -> None:
    tool = pytest.importorskip("wds2idx", reason="DALI is not installed; it needs Linux")
    for tar in map(Path, shards.tars(size)):
        theirs = tmp_path / "their.idx"
        with tool.IndexCreator(str(tar), str(theirs)) as creator:
            creator.create_index()
        assert tar.with_suffix(".idx").read_text() == theirs.read_text()


@each_size
@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "full"])
def test_hugging_face_datasets_loads_the_same_samples(
    shards: BuiltShards, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, streaming: bool
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    extension = EXTENSIONS[size]
    loaded = datasets.load_dataset(
        "webdataset", data_files={"train": shards.tars(size)}, split="train",
        streaming=streaming, cache_dir=str(tmp_path),
    )  # fmt: skip
    if extension != "npy":
        loaded = loaded.cast_column(extension, datasets.Image(decode=False))
    rows = list(loaded)
    assert len(rows) == len(shards.samples[size])
    for row, wanted in zip(rows, shards.samples[size], strict=True):
        assert (row["__key__"], row["cls"], row["json"]) == (
            wanted.key, wanted.class_id, wanted.metadata,
        )  # fmt: skip
        if extension == "npy":
            np.testing.assert_array_equal(row["npy"], pixels(wanted.image, "npy"))
        else:
            assert row[extension]["bytes"] == wanted.image


def member_names(samples: Iterable[ExpectedSample], extension: str) -> list[str]:
    return [f"{sample.key}.{kind}" for sample in samples for kind in ("cls", extension, "json")]


@each_size
@pytest.mark.skipif(sys.platform == "win32", reason="needs a tar program")
def test_the_tar_program_lists_and_extracts_the_members(shards: BuiltShards, size: int) -> None:
    def tar(*arguments: str) -> bytes:
        return subprocess.run(["tar", *arguments], check=True, capture_output=True).stdout

    names = [name for path in shards.tars(size) for name in tar("tf", path).decode().split()]
    assert names == member_names(shards.samples[size], EXTENSIONS[size])
    first = shards.samples[size][0]
    name = f"{first.key}.{EXTENSIONS[size]}"
    assert tar("xOf", shards.tars(size)[0], name) == first.image


@each_size
def test_pythons_tarfile_sees_plain_files_without_owner_or_clock(shards: BuiltShards, size: int) -> None:
    found = []
    for path in shards.tars(size):
        with tarfile.open(path, "r:") as archive:
            found += archive.getmembers()
    assert [entry.name for entry in found] == member_names(shards.samples[size], EXTENSIONS[size])
    assert {(e.type, e.mode, e.uid, e.gid, e.uname, e.gname, e.mtime) for e in found} == {
        (tarfile.REGTYPE, 0o444, 0, 0, "", "", 0)
    }
