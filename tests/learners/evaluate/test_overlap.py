"""Notes on datasets that hold the same images or too few of them, and the warning before a run trains on tests."""

from __future__ import annotations

import ast
from dataclasses import replace
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import pytest

import train
from learners.evaluate.__main__ import main
from learners.evaluate.evaluated_learner import limit_notes
from learners.evaluate.overlap import overlap_notes, training_on_tests
from learners.evaluate.protocols import MD_TEST
from learners.evaluate.records import EvaluationResult
from learners.evaluate.shared_images import SHARED_IMAGES, TEST_ONLY, other_names, plain_class_name
from pipeline.build.builder import build_shards
from pipeline.index import Dataset
from pipeline.records import ClassRecord, Recipe, Rejected
from pipeline.shardset import ShardSet
from pipeline.sources.meta_dataset import MD_FAMILY
from pipeline.sources.meta_dataset.classes import official_classes
from pipeline.sources.vtab.tasks import VTAB_TASKS
from tests.learners.evaluate.tiny import RECIPE, SIZE, Glyphs, flowers, glyphs, of
from tests.pipeline.samplers.synthetic import fake_dataset, official_dataset, shard_set, split_classes


def official(*names: str) -> ShardSet:
    return shard_set(*(official_dataset(name, cap=2) for name in names))


def vtab_set(name: str, classes: list[str]) -> Dataset:
    """A task of VTAB: two images of each class for training, two to test on."""
    words = {"split": ["train", "train", "test", "test"] * len(classes)}
    return fake_dataset(name, [4] * len(classes), [ClassRecord(name=own) for own in classes], words)


def notes(trained: Dataset, evaluated: Dataset, split: str) -> list[str]:
    return list(overlap_notes({trained.manifest.name: trained}, evaluated, split))  # type: ignore[arg-type]


def flower_names() -> list[str]:
    """The 102 classes as TFDS names them, in its order."""
    return sorted(plain_class_name(entry.record.name) for entry in official_classes("vgg_flower"))


# What is shared


def test_meta_datasets_flowers_are_vtabs() -> None:
    trained, evaluated = official_dataset("vgg_flower", cap=2), vtab_set("flowers102", flower_names())
    (note,) = notes(trained, evaluated, "")
    assert note.startswith(
        "TRAINED ON: 71 of 102 classes of flowers102 were in training too, as vgg_flower: anthurium, artichoke"
    )
    (back,) = notes(evaluated, trained, "test")
    assert back.startswith("TRAINED ON: 16 of 16 classes of vgg_flower were in training too, as flowers102: ")


def test_flowers_without_class_names_are_known_by_their_images() -> None:
    evaluated = vtab_set("flowers102", [str(number) for number in range(102)])
    assert notes(official_dataset("vgg_flower", cap=2), evaluated, "") == [
        "TRAINED ON: vgg_flower, which has the images of flowers102 under other classes, was in training"
    ]


def test_tfds_names_the_flowers_as_meta_dataset_does() -> None:
    spec = find_spec("tensorflow_datasets")
    if spec is None or spec.origin is None:
        pytest.skip("tensorflow_datasets is not installed")
    folder = Path(spec.origin).parent / "datasets" / "oxford_flowers102"
    tree = ast.parse((folder / "oxford_flowers102_dataset_builder.py").read_text(encoding="utf-8"))
    (names,) = [node for node in ast.walk(tree) if isinstance(node, ast.List) and len(node.elts) == 102]
    assert sorted(map(plain_class_name, ast.literal_eval(names))) == flower_names()


def test_the_second_imagenet_has_what_the_first_holds_out() -> None:
    first, second = (official_dataset(name, cap=2) for name in ("ilsvrc_2012", "ilsvrc_2012_v2"))
    (note,) = notes(second, first, "test")
    assert "130 of 130 classes of ilsvrc_2012 were in training too, as ilsvrc_2012_v2" in note
    (note,) = notes(first, second, "train")
    assert "712 of 1000 classes of ilsvrc_2012_v2 were in training too, as ilsvrc_2012" in note


def test_two_questions_about_the_same_images_are_noted() -> None:
    trained = vtab_set("clevr_count", ["3 objects", "4 objects"])
    assert notes(trained, vtab_set("clevr_distance", ["depth 0 to 8", "depth 8 to 9"]), "") == [
        "TRAINED ON: clevr_count, which has the images of clevr_distance under other classes, was in training"
    ]


def test_datasets_that_share_nothing_have_no_note() -> None:
    trained = official_dataset("dtd", cap=2)
    assert notes(trained, trained, "test") == []
    assert notes(trained, vtab_set("flowers102", ["banded", "blotchy"]), "") == []


def test_tasks_of_vtab_share_images_exactly_where_tfds_has_one_dataset_for_both() -> None:
    same_builder = {
        frozenset(pair)
        for pair in combinations(VTAB_TASKS, 2)
        if len({VTAB_TASKS[name].builder for name in pair}) == 1
    }
    assert {frozenset(pair) for pair in SHARED_IMAGES if set(pair) <= set(VTAB_TASKS)} == same_builder
    known = {*MD_FAMILY, "ilsvrc_2012", *VTAB_TASKS}
    assert {name for pair in SHARED_IMAGES for name in pair} <= known
    assert other_names("omniglot") == ()


def test_what_only_tests_is_all_of_vtab_and_what_md_tests_without_training_classes() -> None:
    without = {
        name for name in MD_TEST if all(entry.record.split != "train" for entry in official_classes(name))
    }
    assert set(TEST_ONLY) == {*VTAB_TASKS, *without}


# Before training


def warning(shards: ShardSet, *names: str) -> str:
    return training_on_tests(shards, names, orbit=False)


def test_what_md_v2_trains_on_has_no_warning() -> None:
    shards = official(*(name for name in MD_FAMILY if name != "quickdraw"))
    chosen = tuple(name for name in MD_FAMILY if name not in ("quickdraw", "vgg_flower"))
    assert warning(shards, *chosen) == ""
    assert warning(official("omniglot")) == ""


def test_training_on_vtabs_flowers_is_said_where_they_are_not_left_out() -> None:
    shards = official("vgg_flower", "dtd", "mscoco")
    assert warning(shards) == (
        "this run trains on images that it may be tested on: vgg_flower (VTAB tests its images as flowers102); "
        "leave such datasets out with --datasets, or those figures out of a comparison"
    )
    assert warning(shards, "vgg_flower", "dtd") == warning(shards)
    assert warning(shards, "dtd") == ""


def test_training_on_a_test_set_by_its_name_is_said() -> None:
    own = [fake_dataset(name, [3, 3], split_classes(["train", "train"])) for name in ("mscoco", "pets")]
    assert "on: mscoco (MD-v2 only tests it), pets (VTAB only tests it); leave" in warning(shard_set(*own))


def test_training_on_classes_that_the_other_imagenet_holds_out_is_said_where_it_is_there() -> None:
    both = official("ilsvrc_2012", "ilsvrc_2012_v2")
    assert "ilsvrc_2012_v2 (it has the validation and test classes of ilsvrc_2012); leave" in warning(both)
    assert warning(both, "ilsvrc_2012") == ""
    assert warning(official("ilsvrc_2012_v2")) == ""


# Limits


def limited(name: str, limit: int | None, largest: int, left_out: int = 0) -> Dataset:
    dataset = fake_dataset(name, [1, largest])
    rejected = tuple(Rejected(str(number), "is damaged") for number in range(left_out))
    recipe = Recipe(sizes=(84,), limit_per_class=limit)
    return replace(dataset, manifest=replace(dataset.manifest, recipe=recipe, quarantined=rejected))


def test_a_limited_set_is_noted_with_its_own_limit() -> None:
    shards = shard_set(
        limited("quickdraw", 20_000, 20_000), limited("dtd", None, 120), limited("fungi", 50, 50),
        limited("mscoco", 50, 50), limited("aircraft", 20_000, 100), limited("mnist", 50, 49, left_out=1),
    )  # fmt: skip
    assert list(limit_notes(["quickdraw", "dtd", "aircraft"], shards)) == [
        "quickdraw holds at most 20,000 images of a class (--limit-per-class), the benchmark uses all"
    ]
    assert list(limit_notes(["fungi", "mnist", "mscoco"], shards)) == [
        "fungi, mnist, mscoco hold at most 50 images of a class (--limit-per-class), the benchmark uses all"
    ]


# From end to end


def test_a_run_on_meta_datasets_flowers_says_so_and_its_figures_on_vtabs_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Glyphs(name="vgg_flower", splits=[of(train=8)] * 3 + [of(test=8)] * 2)
    build_shards(source, tmp_path / "vgg_flower", RECIPE)
    words = {
        "--shards": tmp_path / "vgg_flower", "--out": tmp_path / "run", "--learner": "protonets",
        "--backbone": "conv4", "--image-size": SIZE, "--way": 3, "--shot": 2, "--query": 2, "--h": 6,
        "--tasks": 1, "--tasks-per-step": 1, "--threads": 1, "--device": "cpu",
    }  # fmt: skip
    assert train.main([str(word) for pair in words.items() for word in pair]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "tested on" in line]
    assert line.startswith("warning: this run trains on images that it may be tested on: vgg_flower (VTAB")
    vtab = flowers(tmp_path)
    words = {"--shards": vtab, "--out": tmp_path / "result", "--checkpoint": tmp_path / "run",
             "--protocol": "vtab", "--splits": "lite", "--threads": 1, "--device": "cpu"}  # fmt: skip
    assert main([str(word) for pair in words.items() for word in pair]) == 0
    (note,) = [own for own in EvaluationResult.load(tmp_path / "result").notes if "TRAINED ON" in own]
    assert note == (
        "TRAINED ON: 3 of 4 classes of flowers102 were in training too, as vgg_flower: "
        "glyph 0, glyph 1, glyph 2"
    )


def test_a_limited_set_is_noted_in_the_evaluation_of_an_untrained_learner(tmp_path: Path) -> None:
    shards = glyphs(tmp_path, replace(RECIPE, limit_per_class=6))
    words = {
        "--shards": shards, "--out": tmp_path / "result", "--learner": "protonets", "--backbone": "conv4",
        "--weights": "random", "--image-size": SIZE, "--protocol": "fixed", "--way": 3, "--shot": 2,
        "--query": 3, "--tasks": 1, "--threads": 1, "--device": "cpu",
    }  # fmt: skip
    assert main([str(word) for pair in words.items() for word in pair]) == 0
    assert EvaluationResult.load(tmp_path / "result").notes[-1] == (
        "glyphs holds at most 6 images of a class (--limit-per-class), the benchmark uses all"
    )
