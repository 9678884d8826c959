"""The command from end to end: figures, notes, several processes, a kill half-way, and errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import train
from learners.evaluate.__main__ import main
from learners.evaluate.records import EvaluationResult
from pipeline.errors import PipelineError, SourceMissing, UsageError
from pipeline.samplers import MetaDataset
from pipeline.shardset import ShardSet
from tests.learners.evaluate.tiny import LARGER, RECIPE, SIZE, flowers, glyphs, orbit

ROOT = Path(__file__).resolve().parents[2]
FIXED = ("--protocol", "fixed", "--way", 3, "--shot", 2, "--query", 3, "--tasks", 7)
FROZEN = ("--learner", "protonets", "--backbone", "conv4", "--weights", "random", "--image-size", SIZE)


def words(shards: Path, out: Path, *more: object) -> list[str]:
    own = ("--shards", shards, "--out", out, "--device", "cpu", "--threads", 1, *more)
    return [str(word) for word in own]


def evaluated(shards: Path, out: Path, *more: object) -> EvaluationResult:
    assert main(words(shards, out, *more)) == 0
    return EvaluationResult.load(out)


pytestmark = pytest.mark.usefixtures("one_thread")


def spawn(ranks: int, arguments: list[str]) -> subprocess.Popen[str]:
    """One process, or several that torchrun starts."""
    start = [sys.executable, "-m"]
    if ranks > 1:
        start += ["torch.distributed.run", "--nproc-per-node", str(ranks), "--rdzv-backend", "c10d",
                  "--rdzv-endpoint", "localhost:0", "-m"]  # fmt: skip
    return subprocess.Popen(
        [*start, "learners.evaluate", *arguments], text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


MD = ("--protocol", "md", "--datasets", "glyphs", "--tasks", 7)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return glyphs(tmp_path_factory.mktemp("evaluate"))


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two episodes of the training glyphs."""
    out = tmp_path_factory.mktemp("runs") / "glyphs-protonets"
    flags = {
        "--shards": shards, "--out": out, "--learner": "protonets", "--backbone": "conv4",
        "--image-size": SIZE, "--way": 3, "--shot": 2, "--query": 2, "--h": 6, "--tasks": 2,
        "--tasks-per-step": 1, "--threads": 1, "--device": "cpu",
    }  # fmt: skip
    assert train.main([str(word) for pair in flags.items() for word in pair]) == 0
    return out


@pytest.fixture(scope="module")
def alone(shards: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluationResult:
    """One process, nothing interrupted."""
    out = tmp_path_factory.mktemp("results") / "alone"
    return evaluated(shards, out, "--checkpoint", trained, *FIXED, "--no-share")


def test_a_result_holds_learner_options_scores_and_cost(alone: EvaluationResult, trained: Path) -> None:
    (score,) = alone.scores
    assert (score.dataset, score.metric, score.count) == ("glyphs", "accuracy", 7)
    assert score.chance == pytest.approx(1 / 3)
    assert 0.2 < score.value <= 1
    assert score.interval is not None
    assert (alone.name, alone.protocol, alone.averages) == ("glyphs-protonets", "fixed", ())
    assert alone.notes == ()
    learner = {"learner": "protonets", "backbone": "conv4", "image_size": SIZE, "tasks": 2, "h": 6}
    assert learner.items() <= alone.learner.items()
    assert {"way": 3, "shot": 2, "query": 3, "tasks": 7, "within": False}.items() <= alone.options.items()
    assert alone.cost.steps == "1F"
    assert alone.cost.parameters == 113_088
    assert alone.cost.macs is not None
    assert alone.cost.seconds > 0


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("asked", [FIXED, MD], ids=["fixed", "md"])
def test_any_number_of_processes_comes_to_the_same_figures(
    shards: Path, trained: Path, tmp_path: Path, ranks: int, asked: tuple[object, ...]
) -> None:
    flags = ("--checkpoint", trained, *asked, "--no-share")
    alone = evaluated(shards, tmp_path / "alone", *flags)
    process = spawn(ranks, words(shards, tmp_path, *flags))
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    result = EvaluationResult.load(tmp_path)
    assert (result.scores, result.averages, result.notes) == (alone.scores, alone.averages, alone.notes)
    assert result.cost.macs == alone.cost.macs
    files = sorted(tmp_path.glob("tasks-*.jsonl"))
    numbers = [[json.loads(line)["number"] for line in f.read_text().splitlines()] for f in files]
    assert numbers == [list(range(rank, 7, ranks)) for rank in range(ranks)]
    assert output.count("wrote") == 1


def test_what_was_killed_goes_on_to_the_same_figures(shards: Path, tmp_path: Path) -> None:
    md = (*FROZEN, "--protocol", "md", "--datasets", "glyphs", "--no-share", "--tasks", 30)
    out = tmp_path / "killed"
    process = spawn(1, words(shards, out, *md))
    file, deadline = out / "tasks-0.jsonl", time.monotonic() + 120
    while not (file.exists() and file.read_bytes().count(b"\n") > 2) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    done = file.read_bytes().count(b"\n")
    assert 2 < done < 30
    result = evaluated(shards, out, *md)
    whole = evaluated(shards, tmp_path / "whole", *md)
    assert (result.scores, result.averages) == (whole.scores, whole.averages)
    assert file.read_bytes().count(b"\n") == 30


def test_the_tasks_of_md_are_those_of_meta_dataset(shards: Path, tmp_path: Path) -> None:
    result = evaluated(shards, tmp_path, *FROZEN, "--protocol", "md", "--datasets", "glyphs", "--tasks", 5)
    own = MetaDataset(ShardSet.open(shards), split="test", datasets=["glyphs"])
    lines = [json.loads(line) for line in (tmp_path / "tasks-0.jsonl").read_text().splitlines()]
    assert [(t["way"], t["support"], t["queries"]) for t in lines] == [
        (own[n].way, len(own[n].support), len(own[n].query)) for n in range(5)
    ]
    (average,) = result.averages
    assert (average.name, average.found, average.wanted) == ("all", 1, 1)
    assert average.value == result.scores[0].value


def test_vtab_averages_say_over_how_many(tmp_path: Path) -> None:
    result = evaluated(flowers(tmp_path), tmp_path / "out", *FROZEN, "--protocol", "vtab", "--splits", "lite")
    (score,) = result.scores
    assert (score.dataset, score.group, score.interval, score.count) == ("flowers102", "natural", None, 1)
    assert {a.name: (a.found, a.wanted, len(a.missing)) for a in result.averages} == {
        "natural": (1, 6, 5), "all": (1, 18, 17),
    }  # fmt: skip
    assert any("their 5 query images count as wrong" in note for note in result.notes)
    assert any("17 of 18 datasets are not in the shards" in note for note in result.notes)


def test_orbit_has_its_metrics_by_mode_and_the_challenges_file(tmp_path: Path) -> None:
    shards = orbit(tmp_path)
    own = ("--protocol", "orbit", "--tasks-per-user", 1)
    result = evaluated(shards, tmp_path / "2021", *FROZEN, *own)
    metrics = {(s.group, s.metric): s.count for s in result.scores}
    assert metrics[("clu-ve", "frame_accuracy")] == metrics[("cle-ve", "video_accuracy")] == 4
    assert metrics[("clu-ve", "user_frames_to_recognition")] == 2
    assert result.options["mode"] == ["cle-ve", "clu-ve"]
    assert not list((tmp_path / "2021").glob("challenge*"))
    later = evaluated(shards, tmp_path / "2022", *FROZEN, *own, "--orbit", "2022")
    assert {s.group for s in later.scores} == {"clu-ve"}
    challenge = json.loads((tmp_path / "2022" / "challenge-clu-ve.json").read_text())
    (task,) = challenge["P177"]
    assert task["task_object_list"] == ["bag", "finger nail clipper"]
    assert task["task_macs_to_personalise"] > 1e6
    assert {len(frames) for frames in task["task_videos"].values()} == {51}


@pytest.mark.parametrize("learner", ["protonets_cosine", "maml", "finetuner"])
def test_every_kind_of_learner_is_evaluated(shards: Path, tmp_path: Path, learner: str) -> None:
    frozen = ("--learner", learner, "--backbone", "conv4", "--weights", "random", "--image-size", SIZE)
    result = evaluated(shards, tmp_path, *frozen, *FIXED[:-1], 2)
    steps = {"maml": "15FB", "finetuner": "50FB"}
    assert result.cost.steps == steps.get(learner, "1F")
    assert result.name == f"{learner}-conv4"
    assert result.notes == ("not trained on tasks; backbone's weights: random",)


def test_shared_features_give_the_same_scores(
    shards: Path, trained: Path, alone: EvaluationResult, tmp_path: Path
) -> None:
    result = evaluated(shards, tmp_path, "--checkpoint", trained, *FIXED, "--share")
    assert result.scores == alone.scores


# Notes


def test_classes_that_were_trained_on_are_noted_and_logged(
    shards: Path, trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = evaluated(shards, tmp_path, "--checkpoint", trained, *FIXED, "--split", "train")
    (note,) = result.notes
    assert note.startswith("TRAINED ON: 6 of 6 classes of glyphs were in training too: glyph 0, glyph 1")
    assert note in caplog.text


def test_images_that_were_resized_in_another_way_are_noted(trained: Path, tmp_path: Path) -> None:
    cut = glyphs(tmp_path, replace(RECIPE, resize="crop"))
    result = evaluated(cut, tmp_path / "out", "--checkpoint", trained, *FIXED)
    (note,) = result.notes
    assert note == (
        "pictures of glyphs: the centre square, lanczos filter; those it was trained on: squashed to a "
        "square, lanczos filter"
    )


def test_a_run_whose_training_cannot_be_looked_up_is_noted(
    shards: Path, trained: Path, tmp_path: Path
) -> None:
    lone = tmp_path / "mine.safetensors"
    lone.write_bytes((trained / "last.safetensors").read_bytes())
    result = evaluated(shards, tmp_path / "a", "--checkpoint", lone, *FIXED)
    assert result.name == "mine"
    (note,) = result.notes
    assert note.endswith("was not checked: no config.json beside mine.safetensors")
    config = json.loads((trained / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "shards": "gone"}))
    result = evaluated(shards, tmp_path / "b", "--checkpoint", lone, *FIXED)
    assert "was not checked: gone is not there" in result.notes[0]


def test_another_size_than_that_of_training_is_noted(shards: Path, trained: Path, tmp_path: Path) -> None:
    larger = ("--checkpoint", trained, *FIXED, "--image-size", LARGER)
    result = evaluated(shards, tmp_path, *larger)
    assert result.notes == (f"evaluated at {LARGER} px, trained at {SIZE} px",)
    assert result.options["image_size"] == LARGER


def test_the_figures_are_printed_as_a_table_or_as_json(
    shards: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command: tuple[Any, ...] = ("--checkpoint", trained, *FIXED)
    result = evaluated(shards, tmp_path, *command)
    table = capsys.readouterr().out
    assert f"{100 * result.scores[0].value:.1f}" in table
    assert f"wrote {tmp_path / 'evaluation.json'}" in table.replace("\n", "")
    assert main(words(shards, tmp_path, *command, "--json")) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "evaluation.json").read_text())


# Refused before any work


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((*FIXED,), r"a --checkpoint, or a --learner and its --backbone"),
        ((*FIXED, "--learner", "maml"), r"a --checkpoint, or a --learner and its --backbone"),
        ((*FIXED, *FROZEN, "--checkpoint", "x"), r"--checkpoint says what --learner says"),
        ((*FIXED, "--checkpoint", "nowhere"), r"nowhere should be a checkpoint"),
        ((*FIXED, *FROZEN, "--orbit", "2021"), r"--orbit is of --protocol orbit, not of fixed"),
        ((*FROZEN, "--protocol", "vtab", "--tasks", 5), r"--tasks is of --protocol md and fixed"),
        ((*FROZEN, "--protocol", "md"), r"no test dataset of Meta-Dataset"),
        ((*FIXED, *FROZEN, "--datasets", "birds"), r"no dataset birds; it has glyphs \(train, test\)"),
        ((*FIXED, *FROZEN, "--image-size", 84), r"84 pixels are needed, and glyphs holds 24, 32"),
        ((*FIXED, *FROZEN, "--backbone", "conv5"), r"conv5"),
        ((*FIXED, *FROZEN, "--weights", "gone.safetensors"), r"gone.safetensors"),
    ],
)
def test_impossible_requests_are_refused(
    shards: Path, tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    with pytest.raises(PipelineError, match=message):
        main(words(shards, tmp_path / "out", *options))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_file_has_what_flags_have_and_flags_win(
    shards: Path, trained: Path, alone: EvaluationResult, tmp_path: Path, suffix: str
) -> None:
    values = {
        "shards": [str(shards)], "checkpoint": str(trained), "protocol": "fixed", "way": 3, "shot": 4,
        "query": 3, "tasks": 7, "device": "cpu", "threads": 1, "share": True, "name": "from the file",
        "out": "nowhere", "min-examples-in-class": 0,
    }  # fmt: skip
    file = tmp_path / f"evaluate.{suffix}"
    file.write_text(json.dumps(values))  # which is YAML, too
    flags = ("--config", file, "--out", tmp_path / "out", "--shot", 2, "--no-share")
    assert main([str(word) for word in flags]) == 0
    result = EvaluationResult.load(tmp_path / "out")
    assert result.name == "from the file"
    assert (result.scores, result.options) == (alone.scores, alone.options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chnk: 4", r"--config .*evaluate.yaml: it has 'chnk', .*; 'chunk' may be meant"),
        ("chunk: '4'", r"evaluate.yaml: chunk: Invalid enum value '4'"),
        ("threads: '4'", r"evaluate.yaml: threads: Expected `int \| null`, got `str`"),
        ("way: five", r"evaluate.yaml: way: Expected `int`, got `str`"),
        ("within: 'no'", r"evaluate.yaml: within: Expected `bool`, got `str`"),
        ("shards: one", r"evaluate.yaml: shards: Expected `array`, got `str`"),
        ("precision: float8", r"evaluate.yaml: precision: Invalid enum value 'float8'"),
        ("protocol: mini", r"--protocol is one of md, vtab, orbit, fixed; got 'mini'"),
        ("orbit: '2021'", r"--orbit is of --protocol orbit, not of fixed"),
        ("protocol:", r"--shards is needed: the shard set to evaluate on"),
        ("- way", r"should hold names and values"),
        ("way: [", r"cannot be read"),
    ],
)
def test_a_file_with_a_wrong_value_is_an_error_that_names_it(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "evaluate.yaml"
    values = {} if text == "protocol:" else {"shards": ["set"], "protocol": "fixed"}
    lines = [f"{name}: {json.dumps(value)}" for name, value in values.items() if name not in text]
    file.write_text("\n".join([text] if text.startswith("-") else [*lines, text]))
    with pytest.raises(UsageError, match=message):
        main(["--config", str(file)])
    with pytest.raises(SourceMissing, match=r"gone.yaml: there is no such file"):
        main(["--config", str(tmp_path / "gone.yaml")])


def test_an_evaluation_goes_on_with_the_settings_it_began_with(
    shards: Path, trained: Path, tmp_path: Path
) -> None:
    evaluated(shards, tmp_path, "--checkpoint", trained, *FIXED)
    with pytest.raises(UsageError, match=r"seed was 0 and is 1\. .*--out"):
        main(words(shards, tmp_path, "--checkpoint", trained, *FIXED, "--seed", 1))
    with pytest.raises(UsageError, match=r"weights was"):
        main(words(shards, tmp_path, *FROZEN, *FIXED, "--seed", 0))


def test_more_tasks_are_added_to_those_that_are_finished(shards: Path, trained: Path, tmp_path: Path) -> None:
    asked = ("--checkpoint", trained, *FIXED)
    whole = evaluated(shards, tmp_path / "whole", *asked)
    few = evaluated(shards, tmp_path / "grown", *asked, "--tasks", 3)
    assert {score.count for score in few.scores} == {3}
    before = (tmp_path / "grown" / "tasks-0.jsonl").read_bytes()
    grown = evaluated(shards, tmp_path / "grown", *asked)
    assert grown.scores == whole.scores
    assert (tmp_path / "grown" / "tasks-0.jsonl").read_bytes().startswith(before)
    assert evaluated(shards, tmp_path / "grown", *asked, "--tasks", 3).scores == few.scores


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "torchrun --nproc-per-node 4 -m learners.evaluate" in shown
    assert "--config FILE" in shown


def test_missing_shards_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match=r"is not there"):
        main(words(tmp_path / "nothing", tmp_path / "out", *FROZEN, *FIXED))
