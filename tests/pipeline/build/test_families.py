"""Families of datasets: which members `--dataset md` builds, and limits for single ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.build.__main__ import main
from pipeline.command import run_command
from pipeline.index import Dataset, DatasetManifest
from tests.images import tree_hashes
from tests.pipeline.sources.meta_dataset import layouts

SMALL = ("--sizes", "16", "--encode", "16=raw", "--workers", "1", "--quiet")


def build(*arguments: object) -> int:
    return run_command(main, [*map(str, arguments), *SMALL])


def planned(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, int]:
    """The images of each dataset that a command would build."""
    assert build(*arguments, "--dry-run", "--json") == 0
    return {plan["dataset"]: plan["images"] for plan in json.loads(capsys.readouterr().out)}


def manifest(folder: Path) -> DatasetManifest:
    return Dataset.open(folder).manifest


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST (three sevens), textures (one image of each) and ImageNet (one image of each)."""
    root = tmp_path_factory.mktemp("downloads")
    layouts.mnist(root / "mnist")
    layouts.dtd(root / "dtd")
    layouts.ilsvrc_2012(root / "ilsvrc_2012")
    return root


# Which datasets


def test_md_has_imagenet_once_with_all_classes_for_training_and_the_first_version_by_its_name(
    downloads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build("--dataset", "md", "--source", downloads, "--out", tmp_path / "md") == 0
    assert {path.name for path in (tmp_path / "md").iterdir()} == {"dtd", "ilsvrc_2012_v2", "mnist"}
    assert dict(manifest(tmp_path / "md" / "ilsvrc_2012_v2").splits) == {"train": 1000}
    first = ("--dataset", "ilsvrc_2012", "--source", downloads / "ilsvrc_2012", "--out", tmp_path / "first")
    assert build(*first) == 0
    assert dict(manifest(tmp_path / "first").splits) == {"test": 130, "train": 712, "validation": 158}
    assert "twice" not in capsys.readouterr().err


def test_what_is_missing_of_a_family_is_a_line_for_each_dataset(
    downloads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = tmp_path / "source"
    one.mkdir()
    (one / "mnist").symlink_to(downloads / "mnist")
    assert planned(capsys, "--dataset", "md", "--source", one) == {"mnist": 12}
    build("--dataset", "md", "--source", one, "--dry-run")
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == f"warning: 10 of 11 are not in {one}:"
    assert [line.split()[:2] for line in lines if line.startswith("  ")] == [
        [name, "needs"]
        for name in (
            "ilsvrc_2012_v2", "omniglot", "aircraft", "cu_birds", "dtd", "quickdraw", "fungi", "vgg_flower",
            "traffic_sign", "mscoco",
        )
    ]  # fmt: skip


def test_a_set_with_the_imagenet_of_earlier_versions_is_said_to_hold_it_twice(
    downloads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ("--dataset", "ilsvrc_2012", "--source", downloads / "ilsvrc_2012")
    assert build(*first, "--out", tmp_path / "ilsvrc_2012") == 0
    assert build("--dataset", "md", "--source", downloads, "--out", tmp_path, "--dry-run") == 0
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "twice" in text]
    assert f"{tmp_path} holds ImageNet twice: ilsvrc_2012 is Meta-Dataset's first version of it" in line
    assert "delete it, or keep it" in line


# Limits


def test_a_limit_is_for_all_datasets_or_for_those_it_names(
    downloads: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family = ("--dataset", "md", "--source", downloads, "--limit-per-class")
    assert planned(capsys, *family, 1) == {"ilsvrc_2012_v2": 1000, "dtd": 47, "mnist": 10}
    assert planned(capsys, *family, 2)["mnist"] == 11
    assert planned(capsys, *family, "mnist=1", "quickdraw=20000")["mnist"] == 10
    assert planned(capsys, *family, "dtd=1") == {"ilsvrc_2012_v2": 1000, "dtd": 47, "mnist": 12}
    assert planned(capsys, *family, 1, "mnist=2")["mnist"] == 11
    assert planned(capsys, "--dataset", "mnist", "--source", downloads, *family[-1:], "mnist=1") == {
        "mnist": 10
    }


def test_each_recipe_has_its_own_limit_and_the_bytes_of_a_build_of_that_dataset_alone(
    downloads: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("mnist", "dtd"):
        (source / name).symlink_to(downloads / name)
    family = ("--dataset", "md", "--source", source, "--out", tmp_path / "md")
    assert build(*family, "--limit-per-class", "mnist=2") == 0
    limits = {name: manifest(tmp_path / "md" / name).recipe.limit_per_class for name in ("mnist", "dtd")}
    assert limits == {"mnist": 2, "dtd": None}
    for name, limit in (("mnist", ("--limit-per-class", 2)), ("dtd", ())):
        assert build("--dataset", name, "--source", source / name, "--out", tmp_path / name, *limit) == 0
        assert tree_hashes(tmp_path / name) == tree_hashes(tmp_path / "md" / name)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            ["quikdraw=3"],
            "names 'quikdraw', which is none of the datasets to build; 'quickdraw' may be meant",
        ),
        (["ilsvrc_2012=3"], "names 'ilsvrc_2012', which is none of the datasets to build; 'ilsvrc_2012_v2'"),
        (["zebra=3"], "names 'zebra', which is none of the datasets to build; the build is about ilsvrc_"),
        (["=3"], "names '', which is none of the datasets"),
        (["many"], "takes numbers K or NAME=K, got 'many'"),
        (["mnist=many"], "takes numbers K or NAME=K, got 'mnist=many'"),
        (["mnist="], "takes numbers K or NAME=K, got 'mnist='"),
        (["2.5"], "takes numbers K or NAME=K, got '2.5'"),
        (["mnist=0"], "starts at 1, got 0 for mnist"),
        (["-3"], "starts at 1, got -3"),
        (["3", "4"], "has two limits for all datasets"),
        (["mnist=3", "mnist=3"], "has two limits for mnist"),
    ],
)
def test_a_limit_that_cannot_be_is_one_line(
    limits: list[str], message: str, downloads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family = ("--dataset", "md", "--source", downloads, "--out", tmp_path / "o")
    assert build(*family, "--limit-per-class", *limits) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --limit-per-class ")
    assert message in line
    assert not (tmp_path / "o").exists()


def test_a_limit_for_another_dataset_than_the_one_that_is_built_is_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert build("--dataset", "demo", "--limit-per-class", "quickdraw=3") == 2
    assert "names 'quickdraw', which is none of the datasets to build; the build is about demo" in (
        capsys.readouterr().err
    )
