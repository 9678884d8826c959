"""Training at equal time: each contender gets the time it was promised, and differences are those of the same episodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import equal_time
from benchmarks.equal_time import EQUAL_TIME, EqualTimeSetting, TimedTraining, comparison, main
from learners.evaluate.scores import mean_interval
from pipeline.build.__main__ import main as build

TINY = EqualTimeSetting(
    settings={
        "learner": "protonets", "backbone": "conv4", "image_size": 28, "way": 5, "shot": 2, "query": 4, "h": 8,
        "tasks_per_step": 1,
    },
    query_h=4, fewer=2, seconds=(0.2, 0.4), held_out="validation",
)  # fmt: skip


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the drawn glyphs as the setting `tiny`."""
    folder = tmp_path_factory.mktemp("glyphs")
    words = ["--dataset", "demo", "--out", str(folder / "tiny"), "--sizes", "28", "--quiet"]
    assert build(words) == 0
    return folder


def result(contender: str, seed: int, accuracies: list[float]) -> dict[str, Any]:
    return {
        "contender": contender, "seed": seed, "seconds": 1.0, "spent": 1.0, "steps": 2, "tasks": 2 + seed,
        "accuracies": accuracies, "losses": [1 - value for value in accuracies],
    }  # fmt: skip


def test_differences_leave_out_what_episodes_and_seeds_have_in_common() -> None:
    hard = [0.2, 0.9, 0.4]
    rows = [result("exact", seed, [value + seed / 100 for value in hard]) for seed in range(3)]
    rows += [result("neyman", seed, [value + seed / 100 + 0.03 for value in hard]) for seed in range(3)]
    exact, neyman = comparison(rows)
    assert (exact["queries"], exact["episodes"], neyman["queries"]) == ("exact", 3, "neyman")
    assert "accuracy - exact, seeds" not in exact
    for over in ("episodes", "seeds"):
        assert neyman[f"accuracy - exact, {over}"] == "3.00 ± 0.00"
        assert neyman[f"loss - exact, {over}"] == "-0.0300 ± 0.0000"


def test_the_interval_over_episodes_is_that_of_means_over_seeds() -> None:
    changes = {0: [0.1, 0.0, 0.0], 1: [-0.1, 0.0, 0.2]}
    rows = [result("exact", seed, [0.5, 0.5, 0.5]) for seed in changes]
    rows += [result("fewer", seed, [0.5 + change for change in changes[seed]]) for seed in changes]
    mean, half = mean_interval([0.0, 0.0, 0.1])
    assert comparison(rows)[1]["accuracy - exact, episodes"] == f"{100 * mean:.2f} ± {100 * half:.2f}"
    assert comparison(rows, "fewer")[0]["accuracy - fewer, episodes"].startswith(f"{-100 * mean:.2f} ±")


@pytest.mark.parametrize(("spent", "due"), [(0.0, True), (9.4, True), (9.6, False), (10.2, False)])
def test_a_contender_steps_while_that_brings_it_nearer_to_its_time(spent: float, due: bool) -> None:  # noqa: FBT001
    steps = round(spent)  # of a second each, nearly
    assert TimedTraining(None, iter(()), spent, steps).due(10.0) == due  # type: ignore[arg-type]


def test_contenders_get_equal_time_and_a_finished_seed_is_not_trained_again(
    glyphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(EQUAL_TIME, "tiny", TINY)
    monkeypatch.setattr(equal_time, "real_data", lambda: tmp_path)
    words = ["tiny", "--seeds", "3", "--questions", "40", "--shards", str(glyphs), "--out", str(tmp_path)]
    assert main(words) == 0
    table = capsys.readouterr().out
    file = tmp_path / "tiny-3.json"
    rows = json.loads(file.read_text())
    assert [row["contender"] for row in rows] == 2 * ["exact", "uniform", "neyman", "fewer"]
    for row in rows:
        each = row["spent"] / row["steps"]
        assert abs(row["spent"] - row["seconds"]) <= 3 * each
        assert len(row["accuracies"]) == len(row["losses"]) == 40
    assert all(late["tasks"] > early["tasks"] for early, late in zip(rows[:4], rows[4:], strict=True))

    file.write_text(json.dumps(rows[:4]))  # interrupted after the first time
    assert main(words) == 0
    assert len(json.loads(file.read_text())) == len(rows)

    file.write_text(json.dumps(rows))
    monkeypatch.setattr(equal_time, "train_in_turns", lambda *_: pytest.fail("a finished seed trains again"))
    capsys.readouterr()
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[2:] == table.splitlines()[2:]
