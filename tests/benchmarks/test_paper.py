"""The studies of the paper: the small form trains, goes on and compares; the paper's scale says its commands."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path

import pytest

from benchmarks import paper_scale
from benchmarks.paper import STUDIES, main
from benchmarks.paper_runs import ROWS, SmallForm
from benchmarks.paper_scale import PaperScale
from benchmarks.paper_small import paired_difference
from learners.evaluate.flags import parse_flags
from learners.evaluate.scores import mean_interval
from learners.report.published import H_STUDY
from learners.runs import LAST_CHECKPOINT
from learners.training.flags import parse
from pipeline.build.__main__ import main as build
from pipeline.errors import RunInterrupted, SourceMissing, UsageError

TINY = shlex.split(
    "--backbone conv4 --weights random --image-size 32 --way 5 --shot 3 --small-shot 1 --query 2 --h 8 10 "
    "--tasks 2 --tasks-per-step 1 --questions 3 --gradient-tasks 2"
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn glyphs at 32 pixels."""
    folder = tmp_path_factory.mktemp("demo")
    assert build(["--dataset", "demo", "--out", str(folder), "--sizes", "32", "--quiet"]) == 0
    return folder


def table(text: str) -> list[list[str]]:
    """The cells of the Markdown table at the end of an output."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_small_form_trains_a_row_for_each_h_and_goes_on_after_an_interruption(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY, "--shards", str(demo), "--out", str(tmp_path), "--learners", "protonets"]
    first = main_table(["table2", *words], capsys)
    assert [row[1] for row in first[1:]] == ["not trained", "LITE, H = 8", "LITE, H = 10", "all 15"]
    assert first[0][2:4] == ["demo, %", "minus all"]
    assert first[2][4] == ""  # no published row has this |H|
    assert first[3][4:] == ["72.0", "45.8"]  # |H| = 10 of ProtoNets in Table 2
    assert table((tmp_path / "table2.md").read_text()) == first
    weights = {run.name: (run / LAST_CHECKPOINT).read_bytes() for run in tmp_path.glob("protonets-*-0")}
    assert len(weights) == len(set(weights.values())) == 3

    results = tmp_path / "results" / "protonets-h10-0" / "tasks-0.jsonl"
    results.write_text(results.read_text().splitlines(keepends=True)[0])  # stopped after one task
    monkeypatch.setattr("train.TrainingRun.step", lambda *_: pytest.fail("a finished run trains again"))
    assert main_table(["table2", *words], capsys) == first
    assert {
        run.name: (run / LAST_CHECKPOINT).read_bytes() for run in tmp_path.glob("protonets-*-0")
    } == weights


def test_another_sampler_has_runs_of_its_own() -> None:
    usual, paper = (
        list(ROWS["table2"](SmallForm(sampler=name), "protonets")) for name in ("neyman", "paper-lite")
    )
    assert [run.h for run in usual] == [run.h for run in paper]
    same = {run.name for run in usual} & {run.name for run in paper}
    assert same == {"protonets-untrained", "protonets-all"}
    assert paper[2].label == "LITE paper-lite, H = 1"


def main_table(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    assert main(words) == 0
    return table(capsys.readouterr().out)


def test_small_tasks_and_subsets_are_compared_with_lite_and_share_its_runs(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY, "--shards", str(demo), "--out", str(tmp_path), "--learners", "simple_cnaps"]
    rows = main_table(["small-tasks", *words], capsys)
    assert [row[1] for row in rows[1:]] == ["LITE, H = 10", "2 small tasks, all 5", "3 small tasks, all 5"]
    assert [bool(row[-1]) for row in rows[1:]] == [False, True, True]
    begun = (tmp_path / "simple_cnaps-h10-0" / LAST_CHECKPOINT).stat().st_mtime_ns
    rows = main_table(["subsample", *words], capsys)
    assert [row[1] for row in rows[1:]] == [
        "LITE, H = 8", "subsample, 8 images", "LITE, H = 10", "subsample, 10 images",
    ]  # fmt: skip
    assert (tmp_path / "simple_cnaps-h10-0" / LAST_CHECKPOINT).stat().st_mtime_ns == begun


def test_figure_4_has_a_bias_for_each_sampler_and_h(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY, "--shards", str(demo), "--out", str(tmp_path), "--learners", "protonets"]
    rows = main_table(["figure4", *words], capsys)
    assert {(row[1], row[2]) for row in rows[1:]} == {
        (sampler, h) for sampler in ("neyman", "uniform", "subsample", "paper-lite") for h in ("8", "10")
    }


def test_a_paired_difference_leaves_out_what_both_runs_find_hard() -> None:
    hard = {0: 0.2, 1: 0.9, 2: 0.4}
    other = {"one": hard, "two": {number: value / 2 for number, value in hard.items()}}
    better = {
        name: {number: value + 0.05 for number, value in tasks.items()} for name, tasks in other.items()
    }
    assert paired_difference(better, other) == pytest.approx((0.05, 0))
    mixed = {"one": {0: 0.3, 1: 0.9, 2: 0.4}, "two": other["two"]}
    mean, half = mean_interval([0.1, 0, 0])
    assert paired_difference(mixed, other) == pytest.approx((mean / 2, half / 2))


@pytest.mark.parametrize("learner", ["protonets", "simple_cnaps"])
def test_every_run_is_compared_with_a_run_of_the_same_study(learner: str) -> None:
    for study, rows in ROWS.items():
        runs = list(rows(SmallForm(), learner))
        names = [run.name for run in runs]
        assert len(set(names)) == len(names), study
        assert {run.against for run in runs} <= set(names), study


@pytest.mark.parametrize("study", STUDIES)
def test_every_command_of_the_papers_scale_is_understood(study: str) -> None:
    scale = PaperScale("md", "vtab", Path("b0_84.pt"), Path("out"))
    runs = []
    for command in scale.commands(study):
        if command.name == "train.py":
            config, _ = parse(command.words)
            runs.append((config.learner, config.image_size, config.h, config.sampler, config.max_support))
            assert config.datasets[0] == "ilsvrc_2012_v2"
            assert (config.tasks_per_step, config.validate_at_end) == (16, False)
        elif command.name == "-m learners.evaluate":
            parse_flags(command.words)
        assert command.name in paper_scale.COMMANDS
        assert shlex.split(str(command)) == ["python", *command.name.split(), *command.words]
    assert len(set(runs)) == len(runs)
    if study == "table2":
        assert len(runs) == len(H_STUDY)
        assert sum(sampler == "exact" for *_, sampler, _ in runs) == 1


def test_the_papers_scale_names_the_data_that_are_missing(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["table2", "--scale", "paper", "--md", str(demo), "--vtab", str(tmp_path), "--out", str(tmp_path)]
    assert main([*words, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"python train.py --shards {demo} --preset lite-vtab-md --h 100" in out
    assert "lacks 10 of 10 datasets (ilsvrc_2012_v2, omniglot" in out
    with pytest.raises(SourceMissing, match=r"--dataset vtab .*efficientnet-b0_84\.pt of github"):
        main(words)


def test_the_papers_scale_runs_its_commands_in_order_and_resumes_what_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, list[str]]] = []

    def stopped(words: list[str]) -> int:
        done.append(("train.py", list(words)))
        (tmp_path / "simple_cnaps-224-h40").mkdir()
        (tmp_path / "simple_cnaps-224-h40" / LAST_CHECKPOINT).touch()
        raise RunInterrupted("stopped")

    monkeypatch.setattr(PaperScale, "missing", lambda *_: [])
    monkeypatch.setitem(paper_scale.COMMANDS, "train.py", stopped)
    scale = PaperScale("md", "vtab", tmp_path / "w.pt", tmp_path)
    with pytest.raises(RunInterrupted):
        scale.run("small-tasks", dry=False)

    def finished(name: str, words: list[str]) -> int:
        done.append((name, list(words)))
        return 0

    for name in paper_scale.COMMANDS:
        monkeypatch.setitem(paper_scale.COMMANDS, name, partial(finished, name))
    scale.run("small-tasks", dry=False)
    assert [name for name, _ in done] == [
        "train.py", "train.py", "-m learners.evaluate", "-m learners.evaluate",
        "train.py", "-m learners.evaluate", "-m learners.evaluate", "-m learners.report",
    ]  # fmt: skip
    assert done[1][1] == ["--resume", str(tmp_path / "simple_cnaps-224-h40")]
    assert done[4][1][:4] == ["--shards", "md", "--preset", "lite-small-tasks"]


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["table2", "--h", "200"], UsageError, "a task has 120 support images"),
        (["table2", "--small-shot", "6"], UsageError, "--small-shot 6 should be below --shot 6"),
        (["table2", "--learners", "maml"], UsageError, "--learners is one of protonets"),
        (["table2", "--scale", "paper", "--way", "5"], UsageError, "--way: of --scale small"),
        (["small-tasks"], SourceMissing, "REAL_DATA should name the folder with"),
        (["table2", "--tasks-per-step", "x"], SystemExit, "2"),
    ],
)
def test_impossible_studies_are_errors(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    error: type[BaseException],
    message: str,
) -> None:
    monkeypatch.setenv("REAL_DATA", str(tmp_path))
    with pytest.raises(error, match=message):
        main([*words, "--out", str(tmp_path)])
