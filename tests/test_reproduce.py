"""Every command of docs/reproduce-the-paper.md runs as it stands there, made small by flags that come after it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import train
from learners.evaluate.__main__ import main as evaluate
from learners.evaluate.records import EvaluationResult
from learners.report.__main__ import main as report
from learners.study.__main__ import main as study
from learners.training.config import TrainingConfig
from learners.training.presets import PRESETS
from pipeline.build.__main__ import main as build
from pipeline.errors import SourceMissing
from pipeline.verify.__main__ import main as verify
from tests.learners.evaluate.tiny import flowers
from tests.learners.training.tiny_md import SIDE, SMALL_RUN, one_thread, tiny_md, tiny_orbit
from tests.pipeline.sources.meta_dataset import layouts
from tests.pipeline.sources.orbit.tree import make_orbit

PAGE = (Path(__file__).parents[1] / "docs" / "reproduce-the-paper.md").read_text(encoding="utf-8")
MAINS: dict[str, Callable[[Sequence[str]], int]] = {
    "train.py": train.main,
    "pipeline.build": build,
    "pipeline.verify": verify,
    "learners.evaluate": evaluate,
    "learners.report": report,
    "learners.study": study,
}
TESTED_ELSEWHERE = {"learners.convert", "benchmarks.paper"}
SMALL: dict[str, tuple[object, ...]] = {
    "train.py": ("--tasks", 2, "--tasks-per-epoch", 0, "--validate-from", 0, "--chunk", 16, *SMALL_RUN),
    "pipeline.build": ("--dry-run", "--json"),
    "pipeline.verify": (),
    "learners.evaluate": ("--device", "cpu", "--threads", 1),
    "learners.report": (),
    "learners.study": ("--datasets", "omniglot", "--samplers", "uniform", "--way", 3, "--shot", 2, "--query", 1,
                       "--h", 2, "--tasks", 2, "--draws", 2, "--runs", 2),
}  # fmt: skip
ONE_TASK = {"md": ("--tasks", 1), "vtab": (), "orbit": ("--tasks-per-user", 1)}
UNTRAINED = ("--backbone", "conv4", "--weights", "random", "--image-size", SIDE, "--inner-steps", 1)
single_thread = pytest.fixture(scope="module", autouse=True)(one_thread)


def commands(heading: str = "") -> list[list[str]]:
    """The commands of a section, or of the page: a program and its arguments."""
    text = PAGE.partition(f"\n## {heading}")[2].partition("\n## ")[0] if heading else PAGE
    blocks = "".join(re.findall(r"```\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    words = [shlex.split(line, comments=True) for line in blocks.splitlines() if line.startswith("python ")]
    return [line[2:] if line[1] == "-m" else line[1:] for line in words]


def option(arguments: Sequence[str], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


def carry_out(program: str, arguments: list[str]) -> None:
    """Run a command in this folder, made small."""
    more = SMALL[program]
    if program == "learners.evaluate":
        more = (*more, *ONE_TASK[option(arguments, "--protocol")])
        more = (*more, *UNTRAINED) if "--learner" in arguments else more
    if program == "train.py" and "maml" in arguments:
        more = (*more, "--inner-steps", 1)
    assert MAINS[program]([*arguments, *map(str, more)]) == 0


def check_run(arguments: Sequence[str]) -> None:
    """What a training command of the page left behind."""
    settings = TrainingConfig.read(Path(option(arguments, "--out")))
    assert settings.preset == option(arguments, "--preset")
    for flag in arguments:
        name = flag.removeprefix("--").replace("-", "_")
        made_small = {"shards", "preset", "out", "learner", "mode"} | {
            str(word)[2:].replace("-", "_") for word in SMALL["train.py"]
        }
        if flag.startswith("--") and name not in made_small:
            assert name in settings.overridden


def carry_out_section(heading: str, *programs: str) -> None:
    for program, *arguments in commands(heading):
        if program in programs:
            carry_out(program, arguments)
            if program == "train.py":
                check_run(arguments)


def test_every_command_of_the_page_is_of_a_program_that_is_run_below() -> None:
    programs = {program for program, *_ in commands()}
    assert set(MAINS) <= programs <= set(MAINS) | TESTED_ELSEWHERE
    sections = ("VTAB+MD", "ORBIT", "Table D.7", "Evaluate the authors")  # the last in tests/learners/convert
    below = sum(program in MAINS for heading in sections for program, *_ in commands(heading))
    assert below == sum(program in MAINS for program, *_ in commands())


def test_every_preset_is_trained_and_every_learner_of_it_is_named() -> None:
    trained = [(option(line, "--preset"), line) for line in commands() if line[0] == "train.py"]
    assert {name for name, _ in trained} == set(PRESETS)
    learners = {
        option(line, "--learner") for name, line in trained if name == "orbit-2021" and "--learner" in line
    }
    assert learners | {next(iter(PRESETS["orbit-2021"].by_learner))} == set(PRESETS["orbit-2021"].by_learner)


def test_the_builds_plan_what_is_there_and_list_what_is_missing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("omniglot", "quickdraw"):
        getattr(layouts, name)(tmp_path / "data" / "md" / name)
    make_orbit(tmp_path / "data" / "orbit", frames=60)
    built = [arguments for program, *arguments in commands() if program == "pipeline.build"]
    assert [option(arguments, "--dataset") for arguments in built] == ["md", "vtab", "orbit"]
    meta_dataset, vtab, orbit = built
    carry_out("pipeline.build", meta_dataset)
    carry_out("pipeline.build", orbit)
    planned = capsys.readouterr().out
    assert all(f'"dataset": "{name}"' in planned for name in ("omniglot", "quickdraw", "orbit"))
    with pytest.raises(
        SourceMissing, match=r"no dataset of vtab was found in data/vtab(.|\n)*caltech101 needs"
    ):
        carry_out("pipeline.build", vtab)
    assert "ilsvrc_2012_v2 needs" in caplog.text
    assert not (tmp_path / "shards").exists()


def test_the_commands_for_vtab_and_md_run_to_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_md(tmp_path / "shards" / "md")
    flowers(tmp_path / "shards" / "vtab")
    carry_out_section("VTAB+MD", "pipeline.verify", "train.py", "learners.evaluate", "learners.report")
    carry_out_section("Table D.7", "learners.study")
    best, last = (EvaluationResult.load(Path("results") / name) for name in ("best-md", "last-md"))
    assert (best.learner["preset"], last.name) == ("lite-vtab-md", "last")
    assert len(best.scores) == 8
    page = Path("report/report.md").read_text(encoding="utf-8")
    assert "trained with preset lite-vtab-md (faithful)" in page
    assert "faithful" in capsys.readouterr().out
    assert Path("study.png").exists()


@pytest.mark.slow
def test_the_commands_for_orbit_run_to_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    tiny_orbit(tmp_path).rename(tmp_path / "shards" / "orbit")
    carry_out_section("ORBIT", "train.py", "learners.evaluate", "learners.report")
    trained = EvaluationResult.load(Path("results/orbit-2022-protonets"))
    assert trained.learner["preset"] == "orbit-2022"
    page = Path("report-orbit/report.md").read_text(encoding="utf-8")
    assert "trained with preset orbit-2021 (faithful)" in page
