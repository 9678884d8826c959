"""The tables of each protocol hold the right figures, ranks and notes."""

from __future__ import annotations

import pytest

from learners.evaluate.records import EvaluationResult
from learners.report.entries import learners_table
from learners.report.protocols import fixed_tables, md_tables, orbit_tables, vtab_tables
from learners.report.results import name_results
from learners.report.tables import ReportTable, TableCell
from tests.learners.report.results import COST, LEARNER, ORBIT_VALUES, STRONG, WEAK, fixed, md, orbit, vtab


def cells(table: ReportTable, row: str, band: int | None = None) -> dict[str, TableCell]:
    """Of a row, by the titles of its columns and what stands over them."""
    groups = table.groups if band is None else table.groups[band : band + 1]
    (match,) = [r for group in groups for r in group.rows if r.name == row]
    heads = [f"{column.over} {column.title}".strip() for column in table.columns]
    return dict(zip(heads, match.cells, strict=True))


def md_table(*evaluations: EvaluationResult, published: bool = True) -> ReportTable:
    (table,) = md_tables(name_results(evaluations), published=published)
    return table


def test_meta_dataset_has_a_row_for_a_learner_and_a_column_for_a_dataset() -> None:
    table = md_table(md(), md("ProtoNets", WEAK))
    titles = [column.title for column in table.columns]
    assert titles[:4] == ["average rank", "average", "Omniglot", "Aircraft"]
    assert titles[-2:] == ["Traffic signs", "MSCOCO"]
    strong, weak = cells(table, "Simple CNAPs"), cells(table, "ProtoNets")
    assert strong["Omniglot"] == TableCell("92.1", "0.9", "1", best=True)
    assert weak["Omniglot"] == TableCell("88.5", "0.9", "2")
    assert strong["Birds"] == TableCell("78.8", "0.9", "1.5", best=True)  # 0.6 apart, 1.27 is a tie
    assert weak["Birds"] == TableCell("78.2", "0.9", "1.5", best=True)
    assert weak["Textures"].rank == "2"  # 1.3 apart
    assert strong["average"].text == "73.0"
    assert (strong["average rank"].text, weak["average rank"].text) == ("1.2", "1.8")


def test_published_rows_are_marked_and_have_their_source() -> None:
    table = md_table(md())
    ours, theirs = table.groups
    assert theirs.title == "published"
    assert [row.published for row in ours.rows + theirs.rows] == [False, True, True, True]
    paper = cells(table, "ProtoNets + LITE, EfficientNet-B0, 224 px, |H| = 40")
    assert paper["average"].text == "72.7"
    assert paper["Omniglot"] == TableCell("-")
    assert any("Table 2, arXiv:2107.01105" in line for line in table.legend)
    alone = md_table(md(), published=False)
    assert [group.title for group in alone.groups] == ["evaluated here"]
    assert not any("Published" in line for line in alone.legend)


def test_one_learner_has_no_rank_and_no_legend_of_ranks() -> None:
    table = md_table(md(), published=False)
    assert "average rank" not in [column.title for column in table.columns]
    assert {cell.rank for cell in table.groups[0].rows[0].cells} == {""}
    assert not any("rank" in line for line in table.legend)


def test_an_average_of_fewer_datasets_is_marked_and_wins_nothing() -> None:
    table = md_table(md(shares=(0.99,) * 3), md("ProtoNets", WEAK), published=False)
    short = cells(table, "Simple CNAPs")
    assert short["average"] == TableCell("99.0", aside="3 of 8")
    assert short["Omniglot"] == TableCell("-")
    assert short["average rank"].text == "1.0"  # over the three that both have
    assert table.groups[0].rows[0].marks == ("a",)
    assert table.footnotes[0][1].startswith("5 of 8 datasets are not in the shards")


def test_one_note_has_one_letter_in_all_rows() -> None:
    table = md_table(md(count=50, notes=("one",)), md("b", count=50), md("c", notes=("two", "one")))
    assert [row.marks for row in table.groups[0].rows] == [("a", "b"), ("a",), ("b", "c")]
    assert [text for _, text in table.footnotes][1:] == ["one", "two"]


def test_vtab_has_its_groups_and_every_task() -> None:
    summary, tasks = vtab_tables(name_results([vtab(), vtab("worse", add=-0.1)]), published=True)
    titles = [column.title for column in summary.columns]
    assert titles == ["natural", "specialised", "structured", "all"]
    assert cells(summary, "Simple CNAPs")["all"].text == "55.0"
    paper = cells(summary, "Simple CNAPs + LITE, EfficientNet-B0, 224 px, |H| = 40")
    assert paper["natural"] == TableCell("65.2", best=True)
    assert not paper["structured"].best
    assert [group.title for group in tasks.groups] == ["", "natural", "specialised", "structured"]
    assert [len(group.rows) for group in tasks.groups] == [1, 6, 4, 8]
    assert cells(tasks, "caltech101")["Simple CNAPs"] == TableCell("25.0", "", "1", best=True)
    assert cells(tasks, "average rank") == {"Simple CNAPs": TableCell("1.0"), "worse": TableCell("2.0")}


def test_other_splits_are_not_ranked_with_the_papers() -> None:
    summary, _ = vtab_tables(name_results([vtab(splits="vtab")]), published=True)
    assert summary.groups[1].title == "published; not comparable: they are of LITE's splits"
    assert not any(cell.best for group in summary.groups for r in group.rows for cell in r.cells)


def test_a_narrowed_evaluation_stands_apart_and_is_not_ranked_with_the_others() -> None:
    quick = vtab("quick", add=0.1, query_limit=500)
    summary, _ = vtab_tables(name_results([vtab(), quick]), published=True)
    titles = [group.title for group in summary.groups]
    assert titles == [
        "evaluated here", "evaluated here, not comparable with the others", "published",
    ]  # fmt: skip
    assert not cells(summary, "quick")["all"].best
    assert cells(summary, "Simple CNAPs")["all"].best


def test_orbit_is_laid_out_as_table_1() -> None:
    videos, users = orbit_tables(name_results([orbit()]), published=True)
    ours = cells(videos, "ProtoNets")
    assert ours["clean videos frame"] == TableCell("82.4", "1.7", "2", best=True)
    assert ours["clutter videos to recognition"] == TableCell("18.2", "1.7")
    assert [ours[head].text for head in ("to adapt MACs", "to adapt steps", "to adapt time")] == [
        "1.21 T", "1F", "1.90 s",
    ]  # fmt: skip
    paper = cells(videos, "Simple CNAPs + LITE, EfficientNet-B0, 224 px")
    assert paper["clutter videos video"] == TableCell("71.9", "2.3", "2", best=True)
    assert paper["clean videos to recognition"] == TableCell("-")
    assert [paper[head].text for head in ("to adapt MACs", "parameters")] == ["3.39 T", "5.67 M"]
    assert len(videos.groups[1].rows) == 15
    assert cells(users, "ProtoNets")["clean videos frame"] == TableCell("82.4", "5.1")


def test_fewer_frames_to_recognition_are_better() -> None:
    late = {**ORBIT_VALUES, "cle-ve frames_to_recognition": (0.2, 0.01)}
    videos, _ = orbit_tables(name_results([orbit(), orbit("late", values=late)]), published=False)
    heading = "clean videos to recognition"
    assert cells(videos, "ProtoNets")[heading] == TableCell("6.1", "1.2", "1", best=True)
    assert cells(videos, "late")[heading].rank == "2"


def test_the_benchmark_since_2022_has_its_own_published_rows_and_digits() -> None:
    result = orbit("new", "2022", {"clu-ve frame_accuracy": (0.68414, 0.00553)})
    videos, _ = orbit_tables(name_results([result]), published=True)
    assert cells(videos, "new")["clutter videos frame"] == TableCell("68.41", "0.55", "10.5")
    assert len(videos.groups[1].rows) == 16
    paper = cells(videos, "ProtoNets (cosine) + LITE, ViT-B-32 pretrained on ImageNet-21k, 224 px")
    assert paper["clutter videos frame"] == TableCell("75.38", "0.51", "1", best=True)


def test_fixed_episodes_are_ranked_within_way_shot_and_kind() -> None:
    results = name_results([fixed(), fixed("b", {"omniglot": 0.95, "mnist": 0.8}), fixed(within=True)])
    (table,) = fixed_tables(results, published=True)
    assert [group.title for group in table.groups] == [
        "5-way 1-shot, across groups", "5-way 1-shot, within a group",
    ]  # fmt: skip
    assert cells(table, "conv4", 0)["omniglot"] == TableCell("97.80", "0.40", "1", best=True)
    assert cells(table, "b", 0)["mnist"] == TableCell("80.00", "0.40", "1", best=True)
    assert cells(table, "conv4", 1)["omniglot"] == TableCell("97.80", "0.40")
    assert cells(table, "b", 0)["average rank"].text == "1.5"


def test_the_exact_gradient_is_of_all_support_images() -> None:
    table = learners_table(name_results([md(learner={**LEARNER, "sampler": "exact"})]))
    assert cells(table, "Simple CNAPs")["|H|"].text == "all"


@pytest.mark.parametrize("known", [LEARNER, {}])
def test_the_learners_table_tells_what_is_known(known: dict[str, object]) -> None:
    table = learners_table(name_results([md(learner=known, shares=STRONG)]))
    row = cells(table, "Simple CNAPs")
    assert row["to adapt MACs"].text == "215.00 G"
    assert row["parameters"].text == f"{COST.parameters / 1e6:.2f} M"
    assert ("backbone" in row) == bool(known)
    if known:
        assert (row["|H|"].text, row["trained on"].text) == ("40", "10,000 tasks")
