"""Results are read, named and grouped; what makes one incomparable is noted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from learners.evaluate.records import AverageScore
from learners.report.notes import partial_averages, protocol_deviations, result_notes
from learners.report.results import NamedResult, name_results, read_results
from pipeline.errors import IntegrityError, SourceMissing, UsageError
from tests.learners.report.results import LEARNER, STRONG, fixed, md, orbit, vtab


def test_a_file_and_its_folder_are_the_same_result(tmp_path: Path) -> None:
    file = md().save(tmp_path)
    assert read_results([file]) == read_results([tmp_path]) == [NamedResult("Simple CNAPs", md())]


def test_one_result_twice_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = md().save(tmp_path)
    with pytest.raises(UsageError, match="given twice"):
        read_results([tmp_path, file.parent / "." / "evaluation.json", tmp_path])


def test_what_is_no_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match=r"needed evaluation\.json"):
        read_results([tmp_path])
    file = md().save(tmp_path)
    file.write_text(file.read_text()[:-40])
    with pytest.raises(IntegrityError, match="damaged"):
        read_results([file])
    replace(md(), protocol="imagenet").save(tmp_path)
    with pytest.raises(UsageError, match="'imagenet'; a report knows md, vtab, orbit, fixed"):
        read_results([file])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": {}}, r"damaged, evaluate again: scores: Expected `array`"),
        ({"cost": None}, r"damaged, evaluate again: cost: Expected `object`"),
        ({"name": ["a"]}, r"damaged, evaluate again: name: Expected `str`"),
        ({"options": {"image_size": "84"}}, r"image_size: Expected `int \| null`, got `str`"),
        ({"learner": {"h": "all"}}, r"h: Expected `int \| null`, got `str`"),
        ({"colour": "red"}, r"it has 'colour', which this version does not know"),
        ({"format": "other"}, r"has the format 'other' and 'lite-shards evaluation 1' is needed"),
    ],
)
def test_an_evaluation_with_a_wrong_value_is_refused_by_its_name(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    file = md().save(tmp_path)
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(IntegrityError, match=message):
        read_results([file])
    file.write_text("[1]")
    with pytest.raises(IntegrityError, match="has the format None"):
        read_results([file])


def test_results_of_one_name_are_numbered_where_they_stand_together() -> None:
    evaluations = [md("a"), md("b"), md("a"), orbit("a"), fixed("a"), fixed("a", way=20)]
    assert [result.name for result in name_results(evaluations)] == ["a (1)", "b", "a (2)", "a", "a", "a"]


def test_a_variant_is_what_may_be_ranked_together() -> None:
    variants = [r.variant for r in name_results([md(), vtab(), vtab(splits="vtab"), orbit(year="2022")])]
    assert variants == ["", "LITE's splits", "the benchmark's splits", "2022"]
    assert [r.variant for r in name_results([fixed(), fixed(way=20, shot=5, within=True)])] == [
        "5-way 1-shot, across groups", "20-way 5-shot, within a group",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({"query_limit": 500}, "not comparable: at most 500 query images of each task"),
        ({"split": "validation"}, "not comparable: the validation split"),
        ({"image_size": 128}, "not comparable: 128 px, where the papers have 84 and 224"),
    ],
)
def test_what_leaves_the_protocol_is_not_comparable(options: dict[str, object], note: str) -> None:
    result = NamedResult("a", vtab(**options))  # type: ignore[arg-type]
    assert protocol_deviations(result) == (note,)
    assert note in result_notes(result)


def test_a_full_evaluation_needs_no_note() -> None:
    for evaluation in (md(), vtab(), vtab(splits="vtab"), orbit(), orbit(year="2022"), fixed()):
        assert result_notes(NamedResult("a", evaluation)) == ()


def test_fewer_tasks_and_other_images_are_noted() -> None:
    few = replace(md(count=50), options={"image_size": 84})
    assert result_notes(NamedResult("a", few)) == (
        "50 tasks of each dataset, where the protocol has 600",
        "evaluated at 84 px, trained at 224 px",
    )
    users = replace(orbit(year="2022"), options={"orbit": "2022", "tasks_per_user": 5})
    assert result_notes(NamedResult("a", users)) == ("5 tasks of each user, where the protocol has 50",)


def test_an_average_of_some_datasets_says_of_how_many() -> None:
    result = NamedResult("a", md(shares=STRONG[:5]))
    assert partial_averages(result) == {"mean md": "5 of 8"}
    assert result_notes(result) == (
        "3 of 8 datasets are not in the shards: omniglot, quickdraw, traffic_sign",
    )


def test_an_average_of_all_that_was_asked_for_is_not_the_benchmarks() -> None:
    asked = AverageScore(name="all", metric="accuracy", value=0.8, found=2, wanted=2)
    assert partial_averages(NamedResult("a", replace(md(), averages=(asked,)))) == {"mean md": "2 of 8"}
    assert partial_averages(NamedResult("a", replace(fixed(), averages=(asked,)))) == {}


def test_what_the_evaluation_noted_is_not_repeated() -> None:
    mine = "at most 9 query images of each task"
    result = NamedResult("a", replace(vtab(query_limit=9), notes=(mine, "users seen in training")))
    assert result_notes(result) == (f"not comparable: {mine}", "users seen in training")


def test_a_learner_of_which_nothing_is_known_has_no_note_of_it() -> None:
    assert LEARNER["image_size"] == 224
    assert result_notes(NamedResult("a", replace(md(), learner={}))) == ()
