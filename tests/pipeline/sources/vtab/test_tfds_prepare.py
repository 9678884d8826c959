from __future__ import annotations

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import IntegrityError, OutOfSpace, SourceMissing, UsageError
from pipeline.sources.tfrecords.framing import parse_example
from pipeline.sources.vtab.tfds_folder import open_prepared
from pipeline.sources.vtab.tfds_prepare import _process_failure, main, prepare_builders
from tests.pipeline.sources.vtab import fixtures as vtab_fixtures
from tests.pipeline.sources.vtab.fixtures import NEEDED, prepared_by_tfds

needs_tensorflow = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED),
    reason="TFDS' builders need the extra: pip install -e '.[tensorflow]'",
)


@needs_tensorflow
def test_every_builder_prepares_both_formats_and_leaves_nothing_else(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    _, arrays, records = prepared_by_tfds(tmp_path_factory.getbasetemp())
    for out in (arrays, records):
        versions = sorted(path.parent for path in out.glob("**/dataset_info.json"))
        assert len(versions) == 16
        assert len({path.relative_to(out).parts[0] for path in versions}) == 15
        assert not list(out.glob("*.work"))
        assert not list(out.glob("*.log"))
        assert not list(out.glob("**/incomplete*"))


@needs_tensorflow
def test_caltech101s_split_does_not_depend_on_the_file_system(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    _, _, records = prepared_by_tfds(tmp_path_factory.getbasetemp())
    folder = open_prepared(records / "caltech101" / "3.0.2")
    examples = [parse_example(record.data) for record in folder.read("train", range(60))]
    found = {(example["label"][0], example["image/file_name"][0]) for example in examples}
    generator = np.random.RandomState(1234)  # the builder's
    names = [f"image_{i + 1:04d}.jpg" for i in range(32)]
    labels = {name: i for i, name in enumerate(folder.class_names())}
    expected = {
        (labels[folder_name], str(name).encode())
        for folder_name in ("faces", "accordion")  # as their folders sort: Faces, accordion
        for name in generator.choice(names, 30, replace=False)
    }
    assert found == expected


@needs_tensorflow
def test_two_builds_at_once_share_one_preparation(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    vtab_fixtures.eurosat(raw)
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(prepare_builders, ["eurosat/rgb"], raw, out, check_archives=False) for _ in range(2)
        ]
        assert [job.result() for job in jobs] == [None, None]
    assert len(list(out.glob("**/dataset_info.json"))) == 1
    assert sorted(path.name for path in out.iterdir()) == [".eurosat-rgb.lock", "eurosat"]


@needs_tensorflow
def test_an_archive_with_another_checksum_is_an_error_that_names_it(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    vtab_fixtures.eurosat(raw)
    with pytest.raises(IntegrityError, match="wrong checksum") as caught:
        prepare_builders(["eurosat/rgb"], raw, tmp_path / "out")
    assert "EuroSAT.zip" in str(caught.value)
    assert list((tmp_path / "out").glob("eurosat-rgb.*.log"))
    assert not list((tmp_path / "out").glob("**/dataset_info.json"))


@needs_tensorflow
def test_a_damaged_archive_ends_with_the_last_lines_of_the_log(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    vtab_fixtures.eurosat(raw)
    whole = (raw / "EuroSAT.zip").read_bytes()
    (raw / "EuroSAT.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IntegrityError, match=r"eurosat-rgb\..*\.log ends") as caught:
        prepare_builders(["eurosat/rgb"], raw, tmp_path / "out", check_archives=False)
    assert "zip" in str(caught.value).lower()
    assert not list((tmp_path / "out").glob("*.work"))


@needs_tensorflow
def test_what_is_not_there_is_named_and_never_downloaded(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="nothing is downloaded") as caught:
        prepare_builders(["cifar100"], tmp_path, tmp_path / "out")
    assert "cifar-100-binary.tar.gz" in str(caught.value)


def test_without_tensorflow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(UsageError, match=r"pip install -e '\.\[tensorflow\]'"):
        prepare_builders(["cifar100"], tmp_path, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_kind_of_failure_crosses_the_process(tmp_path: Path) -> None:
    log = tmp_path / "kitti.log"
    log.write_text("\n".join(f"line {i}\n" for i in range(100)))
    assert isinstance(_process_failure(5, ["kitti"], log), OutOfSpace)
    assert isinstance(_process_failure(1, ["kitti"], log), IntegrityError)
    killed = str(_process_failure(-9, ["kitti"], log))
    assert "killed by signal 9" in killed
    assert killed.endswith("line 99")
    assert "line 80" not in killed


def test_the_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "--raw" in capsys.readouterr().out
