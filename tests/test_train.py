"""A run trains, is interrupted, goes on bit for bit, and refuses what cannot be before any work."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import train
from learners import checkpoint
from learners import runs as trained
from learners.processes import LOCK_FILE, join_processes
from learners.training.components import initial_learner
from learners.training.config import TrainingConfig
from learners.training.flags import parse
from learners.training.journal import RunJournal, read_records
from pipeline.build.__main__ import main as build
from pipeline.errors import IntegrityError, PipelineError, RunInterrupted, SourceMissing, UsageError
from tests.pipeline.sources.orbit.tree import make_orbit
from tests.small_runs import DEMO_SIDE, demo_run, same, small_demo, weights

ROOT = Path(__file__).resolve().parents[1]
SIZE = DEMO_SIDE
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_demo(tmp_path_factory.mktemp("train") / "demo")


@pytest.fixture(scope="module")
def whole(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps that nothing interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert train.main(demo_run(demo, out)) == 0
    return out


def test_a_run_leaves_settings_metrics_and_weights(whole: Path) -> None:
    steps = [line for line in read_records(whole) if line["kind"] == "step"]
    assert [line["tasks"] for line in steps] == [2, 4, 6, 8]
    assert all(0 <= line["accuracy"] <= 1 and line["loss"] > 0 for line in steps)
    assert {"images_per_second", "waiting", "memory_mb"} <= steps[0].keys()
    assert TrainingConfig.read(whole).learner == "protonets"
    assert (whole / trained.BEST_CHECKPOINT).exists()
    (validation,) = [line for line in read_records(whole) if line["kind"] == "validation"]
    assert validation["datasets"].keys() == {"demo"}


def test_a_run_ends_with_a_curve(whole: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs pip install -e '.[train]'")
    assert (whole / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_settings_give_the_same_bits(demo: Path, whole: Path, tmp_path: Path) -> None:
    assert train.main(demo_run(demo, tmp_path / "again")) == 0
    assert same(weights(tmp_path / "again"), weights(whole))


@pytest.mark.parametrize("done", [2, 4, 6])
def test_a_run_resumed_after_any_step_ends_in_the_same_bits(
    demo: Path, whole: Path, tmp_path: Path, done: int
) -> None:
    out = tmp_path / "parts"
    assert train.main(demo_run(demo, out, "--tasks", done)) == 0
    assert not same(weights(out), weights(whole))
    assert train.main(["--resume", str(out), "--tasks", "8"]) == 0
    assert same(weights(out), weights(whole))
    steps = [line["tasks"] for line in read_records(out) if line["kind"] == "step"]
    assert steps == [2, 4, 6, 8]


def test_a_drawn_part_of_the_queries_trains_and_resumes_bit_for_bit(
    demo: Path, whole: Path, tmp_path: Path
) -> None:
    flags = ("--query-h", 3)
    assert train.main(demo_run(demo, tmp_path / "drawn", *flags)) == 0
    assert train.main(demo_run(demo, tmp_path / "parts", *flags, "--tasks", 4)) == 0
    assert train.main(["--resume", str(tmp_path / "parts"), "--tasks", "8"]) == 0
    assert same(weights(tmp_path / "parts"), weights(tmp_path / "drawn"))
    assert not same(weights(tmp_path / "drawn"), weights(whole))
    assert train.main(demo_run(demo, tmp_path / "every", "--query-h", 1000)) == 0
    assert same(weights(tmp_path / "every"), weights(whole))


def run(*words: object, ranks: int = 1) -> subprocess.Popen[str]:
    start = [sys.executable, str(ROOT / "train.py")]
    if ranks > 1:
        start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks),
                 "--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0",
                 str(ROOT / "train.py")]  # fmt: skip
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    return subprocess.Popen(
        [*start, *map(str, words)], env=os.environ | settings, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_a_run_that_is_asked_to_stop_saves_and_goes_on_bit_for_bit(
    demo: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "stopped"
    process = run(*demo_run(demo, out, "--tasks", 8000, "--save-every", 8000))
    deadline = time.monotonic() + 120
    while not read_records(out) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert f"--resume {out}" in said
    done = checkpoint.load(out / trained.LAST_CHECKPOINT)[1]["tasks"]
    assert done == read_records(out)[-1]["tasks"]
    longer = run(*demo_run(demo, tmp_path / "longer", "--tasks", done))  # as many threads as before
    longer.communicate(timeout=120)
    assert longer.returncode == 0
    assert same(weights(out), weights(tmp_path / "longer"))


def test_a_run_stopped_before_a_validation_resumes_with_it(demo: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    assert train.main(demo_run(demo, whole, "--validate-every", 2)) == 0
    config, _ = parse(demo_run(demo, out, "--validate-every", 2))
    with join_processes("cpu") as members:
        run = train.TrainingRun.open(config, members, resume=False)
        with members.hold(out):
            run.begin(resume=False)
            with RunJournal(out) as journal, pytest.raises(RunInterrupted):
                run.train(journal, [signal.SIGTERM])  # it came during the first step
    assert [line["kind"] for line in read_records(out)] == ["step"]
    assert train.main(["--resume", str(out)]) == 0
    checks = [
        [(line["tasks"], line["accuracy"], line["best"]) for line in read_records(folder)
         if line["kind"] == "validation"]
        for folder in (whole, out)
    ]  # fmt: skip
    assert checks[0] == checks[1]
    assert [tasks for tasks, _, _ in checks[0]] == [2, 4, 6, 8]
    assert same(weights(whole), weights(out))


@pytest.mark.parametrize(
    ("protocol", "learner"),
    [("2021", ("simple_cnaps", "--weights", "random")), ("2022", ("protonets", "--fit-temperature"))],
)
def test_orbit_tasks_train_clip_by_clip(tmp_path: Path, protocol: str, learner: tuple[str, ...]) -> None:
    users = {"train": ("P100", "P118"), "validation": ("P194",)}
    source = make_orbit(tmp_path / "source", users=users, frames=60)
    shards, out = tmp_path / "orbit", tmp_path / "run"
    flags = ["--dataset", "orbit", "--source", str(source), "--sizes", str(SIZE), "--quiet"]
    assert build([*flags, "--out", str(shards), "--encode", f"{SIZE}=raw"]) == 0
    options = ("--orbit", protocol, "--way", 0, "--mode", "clu-ve", "--learner", *learner)
    assert train.main(demo_run(shards, out, *options, "--tasks", 4)) == 0
    steps, (score,) = read_records(out)[:2], read_records(out)[2:]
    assert [line["tasks"] for line in steps] == [2, 4]
    frames = 64 if protocol == "2021" else 59  # padded to clips; without the one that lacks the object
    assert score["accuracy"] * 2 * 2 * frames == pytest.approx(round(score["accuracy"] * 4 * frames))


@pytest.mark.slow
def test_any_number_of_processes_ends_in_the_same_bits(demo: Path, tmp_path: Path) -> None:
    found = []
    for ranks in (1, 2, 4):
        out = tmp_path / f"of{ranks}"
        options = ("--ordered", "--tasks", 8, "--tasks-per-step", 4, "--fit-temperature")
        process = run(*demo_run(demo, out, *options), ranks=ranks)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
        found.append(weights(out))
    assert same(found[0], found[1])
    assert same(found[0], found[2])


@pytest.mark.parametrize("learner", ["protonets_cosine", "cnaps", "simple_cnaps", "maml"])
def test_every_learner_trains(demo: Path, tmp_path: Path, learner: str) -> None:
    out = tmp_path / learner
    assert train.main(demo_run(demo, out, "--learner", learner, "--weights", "random", "--tasks", 2)) == 0
    before, _ = checkpoint.flatten({"learner": initial_learner(TrainingConfig.read(out), CPU).state_dict()})
    after = weights(out)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_temperature_that_fits_is_found_once_and_kept(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train.main(demo_run(demo, whole, "--fit-temperature")) == 0
    found = trained.load_run(whole).net.temperature
    assert found != 1
    assert f"temperature {found:.3g}\n" in capsys.readouterr().out
    assert train.main(demo_run(demo, parts, "--fit-temperature", "--tasks", 4)) == 0
    assert train.main(["--resume", str(parts), "--tasks", "8"]) == 0
    assert same(weights(parts), weights(whole))


def test_augmented_episodes_train_as_well(demo: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "turned"
    assert train.main(demo_run(demo, out, "--rotate", "--flip")) == 0
    assert not same(weights(out), weights(whole))


@pytest.mark.slow
def test_training_raises_the_accuracy_on_classes_never_seen(demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "long"
    options = ("--tasks", 160, "--validation-tasks", 40, "--validate-every", 158)
    assert train.main(demo_run(demo, out, *options)) == 0
    steps = [line["accuracy"] for line in read_records(out) if line["kind"] == "step"]
    assert sum(steps[-20:]) / 20 > sum(steps[:20]) / 20 + 0.1


# Refused before any work


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--precision", "float16", "--learner", "maml"],
            r"nothing scales those of maml's inner steps; take tf32",
        ),
        (["--encoder-norm", "batch"], r"--encoder-norm does not apply to protonets; leave it out"),
        (["--learner", "maml", "--one-shot", "official"], r"--one-shot does not apply to maml"),
        (["--clamp", "10"], r"--clamp does not apply to protonets"),
        (["--learner", "cnaps", "--backbone-norm", "batch"], r"--backbone-norm does not apply to cnaps"),
        (["--lr-factors", "ten:1"], r"--lr-factors takes an episode and the factor.*got 'ten:1'"),
        (["--adam-betas", "0.9"], r"--adam-betas takes two numbers"),
        (["--orbit-caps"], r"--orbit-caps is for --orbit"),
        (["--validation-datasets", "birds"], r"--validation-datasets names birds.*it has demo"),
        (["--h", "-1"], r"--h starts at 0"),
        (["--query-h", "-1"], r"--query-h starts at 0"),
        (["--query-h", "5", "--sampler", "paper-lite"], r"the papers' samplers and maml back-propagate all"),
        (["--query-h", "5", "--learner", "maml"], r"--query-h is for our gradient"),
        (["--image-size", "84"], r"holds 32"),
        (["--lr", "0"], r"learning rates are positive"),
        (["--lr", "nan"], r"--lr is a finite number, got nan"),
        (["--penalty", "inf"], r"--penalty is a finite number, got inf"),
        (["--way", "99"], r"99 classes"),
        (["--datasets", "birds"], r"no dataset 'birds'.*demo"),
        (["--backbone", "conv5"], r"conv5"),
        (["--compile", "--learner", "maml"], r"maml runs as it is"),
        (["--fit-temperature", "--learner", "maml"], r"for protonets and protonets_cosine"),
        (["--fit-temperature", "--temperature", "2"], r"without a --temperature"),
        (["--weights", "missing.safetensors"], r"missing.safetensors"),
    ],
)
def test_what_cannot_be_is_refused(demo: Path, tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        train.main([*demo_run(demo, tmp_path / "x"), *options])
    assert not (tmp_path / "x" / trained.LAST_CHECKPOINT).exists()


def test_an_unknown_flag_is_a_usage_error(demo: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main([*demo_run(demo, tmp_path / "x"), "--learning-rate", "1"])
    assert stopped.value.code == 2


def test_a_run_is_not_overwritten(demo: Path, whole: Path) -> None:
    with pytest.raises(UsageError, match=r"--resume"):
        train.main(demo_run(demo, whole))


def test_a_run_goes_on_with_the_settings_it_began_with(whole: Path) -> None:
    with pytest.raises(UsageError, match=r"h, lr differ"):
        train.main(["--resume", str(whole), "--lr", "0.1", "--h", "3"])
    with pytest.raises(SourceMissing, match=r"no training run"):
        train.main(["--resume", str(whole.parent / "nothing")])


def test_a_damaged_checkpoint_is_said(demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    assert train.main(demo_run(demo, out, "--tasks", 2)) == 0
    data = (out / trained.LAST_CHECKPOINT).read_bytes()
    (out / trained.LAST_CHECKPOINT).write_bytes(data[: len(data) // 2])
    with pytest.raises(IntegrityError, match=r"last.safetensors"):
        train.main(["--resume", str(out), "--tasks", "4"])


def test_weights_that_a_step_threw_away_are_not_saved(demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "diverged"
    with pytest.raises(
        IntegrityError, match=r"answers are not finite: training diverged.*no checkpoint yet.*lower --lr"
    ):
        train.main(demo_run(demo, out, "--lr", 1e30))
    with pytest.raises(SourceMissing, match=r"ended before its first save; start it again"):
        train.main(["--resume", str(out)])


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "diverged"
    assert train.main(demo_run(demo, whole, "--tasks", 4)) == 0
    rate = TrainingConfig.rate_factor
    monkeypatch.setattr(
        TrainingConfig, "rate_factor", lambda own, tasks: 1e30 if tasks == 4 else rate(own, tasks)
    )
    with pytest.raises(IntegrityError, match=r"after episode 5 .*has those after 4 episodes"):
        train.main(demo_run(demo, out))
    assert same(weights(out), weights(whole))
    shutil.rmtree(out)
    with pytest.raises(
        IntegrityError, match=r"the loss of episodes 6 to 7 is nan: .*has those after 4 episodes"
    ):
        train.main(demo_run(demo, out, "--save-every", 4))


def test_a_second_run_in_a_folder_is_refused_while_the_first_lives(demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with join_processes("cpu") as first, first.hold(out):
        with pytest.raises(UsageError, match=rf"run is in use by process {os.getpid()} of .*--out"):
            train.main(demo_run(demo, out, "--seed", 1))
        assert [file.name for file in out.iterdir()] == [LOCK_FILE]
    assert train.main(demo_run(demo, out, "--tasks", 2)) == 0


def test_a_run_does_not_go_on_with_other_images(demo: Path, tmp_path: Path) -> None:
    shards, out = tmp_path / "demo", tmp_path / "run"
    shutil.copytree(demo, shards)
    assert train.main(demo_run(shards, out, "--tasks", 2)) == 0
    moved = shards.rename(tmp_path / "moved")
    assert train.main(["--resume", str(out), "--tasks", "4", "--shards", str(moved)]) == 0
    fewer = [
        "--dataset",
        "demo",
        "--out",
        str(shards),
        "--sizes",
        str(SIZE),
        "--quiet",
        "--limit-per-class",
        "9",
    ]
    assert build([*fewer, "--encode", f"{SIZE}=raw"]) == 0
    before = weights(out)
    with pytest.raises(
        UsageError, match=r"demo had 400 images and has 360\. A run goes on with the same.*--out"
    ):
        train.main(["--resume", str(out), "--tasks", "6"])
    assert same(weights(out), before)


def test_a_journal_line_that_was_cut_off_does_not_matter(demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    assert train.main(demo_run(demo, out, "--tasks", 4)) == 0
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "tas')
    assert train.main(["--resume", str(out), "--tasks", "6"]) == 0
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["tasks"] for line in lines][-2:] == [6, 6]
