"""What a run says of its steps: how long it waited for the device and, with --profile, a table and a trace of some."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import train
from learners.lite import transfers
from learners.processes import join_processes
from learners.training.components import open_loader
from learners.training.config import TrainingConfig
from learners.training.flags import parse
from learners.training.journal import read_records
from learners.training.step_profile import PROFILE_TABLE, PROFILE_TRACE, WARM_UP_STEPS, StepProfiler
from pipeline.errors import UsageError
from tests.learners.training.tiny_md import one_thread, small_run, tiny_md
from tests.small_runs import same, weights

STEPS = WARM_UP_STEPS + 3
FIXED = (
    "--learner", "protonets", "--way", 4, "--shot", 3, "--query", 2, "--h", 8, "--validate-every", 0,
    "--no-validate-at-end",
)  # fmt: skip
single_thread = pytest.fixture(scope="module", autouse=True)(one_thread)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_md(tmp_path_factory.mktemp("profile") / "md", ["omniglot"])


def command(shards: Path, out: Path, *more: object) -> list[str]:
    return small_run("--shards", shards, "--out", out, *FIXED, "--tasks", 2 * STEPS, *more)


@pytest.fixture(scope="module")
def profiled(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two of its six steps recorded."""
    out = tmp_path_factory.mktemp("runs") / "profiled"
    assert train.main(command(shards, out, "--profile", 2)) == 0
    return out


def test_a_step_says_how_long_an_episode_waited_for_the_device(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(transfers, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    config, _ = parse(command(shards, tmp_path))
    with join_processes("cpu") as processes:
        run = train.TrainingRun.open(config, processes, resume=False)
        with open_loader(run.shards, run.sampler, config, processes) as loader:
            assert (
                run.step(iter(loader)).waited == 2
            )  # one tick for each transfer: what neyman draws by, and the loss


def test_the_table_names_what_the_steps_spent_their_time_on(profiled: Path) -> None:
    text = (profiled / PROFILE_TABLE).read_text()
    assert text.startswith("2 steps, ")
    assert "convolution" in text
    assert "(between operators: Python, waiting)" in text


def test_the_trace_is_json_of_the_steps_that_were_recorded(profiled: Path) -> None:
    with gzip.open(profiled / PROFILE_TRACE) as file:
        events = json.load(file)["traceEvents"]
    names = {event["name"] for event in events}
    recorded = {f"ProfilerStep#{WARM_UP_STEPS + number}" for number in range(2)}
    assert {name for name in names if name.startswith("ProfilerStep")} == recorded
    assert "aten::conv2d" in names


def test_training_goes_on_with_the_same_bits(shards: Path, profiled: Path, tmp_path: Path) -> None:
    assert train.main(command(shards, tmp_path / "plain")) == 0
    assert same(weights(tmp_path / "plain"), weights(profiled))
    assert not {PROFILE_TABLE, PROFILE_TRACE} & {file.name for file in (tmp_path / "plain").iterdir()}


def test_records_say_which_steps_the_profiler_slowed(profiled: Path) -> None:
    marks = ["profiled" in record for record in read_records(profiled)]
    assert marks == [WARM_UP_STEPS <= number < WARM_UP_STEPS + 2 for number in range(STEPS)]


def test_a_run_that_goes_on_is_profiled_only_if_asked_again(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train.main(command(shards, out, "--profile", 1)) == 0
    assert TrainingConfig.read(out).profile is None
    assert f"wrote {out / PROFILE_TABLE}, and {out / PROFILE_TRACE}" in capsys.readouterr().out
    (out / PROFILE_TABLE).unlink()
    assert train.main(["--resume", str(out), "--tasks", str(4 * STEPS)]) == 0
    assert not (out / PROFILE_TABLE).exists()
    with pytest.raises(UsageError, match=rf"there are 1 from episode {4 * STEPS} to {4 * STEPS + 2}"):
        train.main(["--resume", str(out), "--tasks", str(4 * STEPS + 2), "--profile", "1"])
    assert train.main(["--resume", str(out), "--tasks", str(6 * STEPS), "--profile", "1"]) == 0
    assert (out / PROFILE_TABLE).exists()


def test_a_run_that_ends_before_its_profile_says_so_and_writes_none(tmp_path: Path) -> None:
    said: list[str] = []
    with StepProfiler(tmp_path, 2, torch.device("cpu"), said.append) as profiler:
        for _ in range(WARM_UP_STEPS + 1):
            profiler.step()
        assert profiler.mark
    assert said == ["no profile was written: training ended before the last of its steps"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (0, r"--profile records at least one step, got 0"),
        (-1, r"--profile records at least one step, got -1"),
        (
            STEPS - WARM_UP_STEPS + 1,
            rf"the first {WARM_UP_STEPS}, and there are {STEPS} from .*raise --tasks",
        ),
    ],
)
def test_what_cannot_be_profiled_is_refused_before_any_work(
    shards: Path, tmp_path: Path, steps: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train.main(command(shards, tmp_path / "x", "--profile", steps))
    assert not (tmp_path / "x").exists()


def test_the_last_step_of_a_run_can_be_recorded(shards: Path, tmp_path: Path) -> None:
    assert train.main(command(shards, tmp_path / "x", "--profile", STEPS - WARM_UP_STEPS)) == 0
    assert (tmp_path / "x" / PROFILE_TABLE).read_text().startswith("3 steps, ")
