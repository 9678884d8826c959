"""Where the members of a family are found, above all ImageNet's two versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import SourceMissing
from pipeline.sources.catalogue import SourceOptions, describe_needed_files, find_member, open_source
from pipeline.sources.meta_dataset.imagenet import ImageNetV2Source
from pipeline.sources.tfrecords.source import MetaRecordsSource

OPTIONS = SourceOptions()


def converted(root: Path, folder: str, train: int, test: int) -> Path:
    """A folder of records with the spec of so many classes."""
    names = [f"n{number:08d}" for number in range(train + test)]
    spec = {
        "name": folder,
        "classes_per_split": {"TRAIN": train, "VALID": 0, "TEST": test},
        "images_per_class": {str(number): 1 for number in range(len(names))},
        "class_names": {str(number): name for number, name in enumerate(names)},
        "path": "/somewhere/else",
        "file_pattern": "{}.tfrecords",
        "__class__": "DatasetSpecification",
    }
    (root / folder).mkdir(parents=True)
    (root / folder / "dataset_spec.json").write_text(json.dumps(spec))
    return root / folder


def test_the_records_of_the_second_imagenet_are_found_in_their_own_folder(tmp_path: Path) -> None:
    folder = converted(tmp_path, "ilsvrc_2012_v2", train=4, test=0)
    converted(tmp_path, "ilsvrc_2012", train=3, test=1)
    assert find_member("ilsvrc_2012_v2", tmp_path, OPTIONS) == folder
    assert isinstance(open_source("ilsvrc_2012_v2", folder), MetaRecordsSource)


def test_records_of_the_first_imagenet_with_the_lite_authors_spec_are_the_second(tmp_path: Path) -> None:
    folder = converted(tmp_path, "ilsvrc_2012", train=4, test=0)
    assert find_member("ilsvrc_2012_v2", tmp_path, OPTIONS) == folder
    source = open_source("ilsvrc_2012_v2", folder)
    assert isinstance(source, MetaRecordsSource)
    assert source.name == "ilsvrc_2012_v2"


def test_records_of_the_first_imagenet_are_not_the_second_and_the_table_says_how_to_build_them(
    tmp_path: Path,
) -> None:
    folder = converted(tmp_path, "ilsvrc_2012", train=3, test=1)
    assert find_member("ilsvrc_2012_v2", tmp_path, OPTIONS) is None
    assert find_member("ilsvrc_2012", tmp_path, OPTIONS) == folder
    needed = describe_needed_files("ilsvrc_2012_v2", tmp_path, OPTIONS)
    assert needed.startswith("ilsvrc_2012_v2 needs ILSVRC2012_img_train.tar (148 GB, https://")
    assert needed.endswith(
        f"in {folder}; the records there are ilsvrc_2012's, which --dataset ilsvrc_2012 --source {folder} builds"
    )
    with pytest.raises(SourceMissing, match=r"ilsvrc_2012_v2 needs what is marked 'missing'"):
        open_source("ilsvrc_2012_v2", folder).survey()


def test_imagenets_tar_beside_records_of_the_first_version_is_the_second(tmp_path: Path) -> None:
    folder = converted(tmp_path, "ilsvrc_2012", train=3, test=1)
    (folder / "ILSVRC2012_img_train.tar").write_bytes(b"")
    assert find_member("ilsvrc_2012_v2", tmp_path, OPTIONS) == folder
    assert isinstance(open_source("ilsvrc_2012_v2", folder), ImageNetV2Source)
    assert isinstance(open_source("ilsvrc_2012", folder), MetaRecordsSource)


def test_a_pickled_spec_is_refused_whichever_imagenet_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "ilsvrc_2012").mkdir()
    (tmp_path / "ilsvrc_2012" / "dataset_spec.pkl").write_bytes(b"")
    with pytest.raises(SourceMissing, match=r"only dataset_spec\.pkl is there, which could run any code"):
        find_member("ilsvrc_2012_v2", tmp_path, OPTIONS)
