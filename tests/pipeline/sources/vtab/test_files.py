from __future__ import annotations

from pathlib import Path

from pipeline.sources.vtab.files import is_available, missing_tasks
from pipeline.sources.vtab.tasks import VTAB_FAMILY, VTAB_TASKS
from tests.pipeline.sources.vtab.fixtures import write_all
from tests.pipeline.sources.vtab.tfds_fixtures import write_prepared


def test_all_tasks_are_found_among_raw_archives(tmp_path: Path) -> None:
    write_all(tmp_path)
    assert [name for name, task in VTAB_TASKS.items() if not is_available(tmp_path, task)] == []
    assert missing_tasks(tmp_path) == ()


def test_a_folder_for_each_task_will_do(tmp_path: Path) -> None:
    for folder in ("clevr_count", "oxford_iiit_pet"):
        (tmp_path / folder).mkdir()
    (tmp_path / "clevr_count" / "CLEVR_v1.0.zip").touch()
    for name in ("images.tar.gz", "annotations.tar.gz"):
        (tmp_path / "oxford_iiit_pet" / name).touch()
    assert {n for n, t in VTAB_TASKS.items() if is_available(tmp_path, t)} == {"clevr_count", "pets"}


def test_nothing_found_is_a_table_of_all_tasks(tmp_path: Path) -> None:
    rows = missing_tasks(tmp_path)
    assert tuple(row.task for row in rows) == VTAB_FAMILY
    by_task = {row.task: str(row) for row in rows}
    assert "CLEVR_v1.0.zip (19.02 GB) from https://dl.fbaipublicfiles.com" in by_task["clevr_count"]
    assert "unpack NWPU-RESISC45.rar" in by_task["resisc45"]
    assert "kaggle.com" in by_task["retinopathy"]
    assert "oxford_iiit_pet/3.* or 4.*" in by_task["pets"]
    assert all(str(tmp_path) in text for text in by_task.values())


def test_only_what_is_absent_is_listed(tmp_path: Path) -> None:
    (tmp_path / "svhn").mkdir()
    (tmp_path / "svhn" / "extra_32x32.mat").touch()
    (row,) = missing_tasks(tmp_path, [VTAB_TASKS["svhn"]])
    assert [file.name for file in row.files] == ["train_32x32.mat", "test_32x32.mat"]
    assert row.bytes == 182_040_794 + 64_275_384


def test_prepared_folders_are_found_without_archives(tmp_path: Path) -> None:
    write_prepared(tmp_path / "tfds", {"train": [[b""]]}, name="kitti", version="3.1.0")
    assert is_available(tmp_path, VTAB_TASKS["kitti_distance"])
    write_prepared(tmp_path, {"train": [[b""]]}, name="smallnorb", version="1.0.0")
    assert not is_available(tmp_path, VTAB_TASKS["smallnorb_azimuth"])


def test_retinopathy_needs_both_configurations_only_for_both_protocols(tmp_path: Path) -> None:
    task = VTAB_TASKS["retinopathy"]
    folder = write_prepared(tmp_path, {"train": [[b""]]}, name=task.builder, version="3.0.0")
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"name"', '"configName": "original", "name"', 1))
    (folder.parent / "original").mkdir()
    folder.rename(folder.parent / "original" / "3.0.0")
    assert is_available(tmp_path, task, "lite")
    assert not is_available(tmp_path, task, "vtab")
    assert not is_available(tmp_path, task, "both")
