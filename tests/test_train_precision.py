"""Training in each precision: what a CPU makes of it, float16's loss scale over steps, saves and resumed runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train
from learners import checkpoint
from learners.networks.arithmetic import CUBLAS_WORKSPACE, FIRST_LOSS_SCALE, convolutions_use_tf32
from learners.processes import join_processes
from learners.runs import LAST_CHECKPOINT, SETTINGS_FILE
from learners.training import loss_scale
from learners.training.components import open_loader
from learners.training.config import TrainingConfig
from learners.training.flags import parse
from learners.training.journal import read_records
from learners.training.step import TrainingStep
from pipeline.errors import IntegrityError, UsageError
from tests.small_runs import demo_run, same, small_demo, weights

ROOT = Path(__file__).resolve().parents[1]
OVERFLOWING_SCALE = 2.0**30  # of the first step; some halvings later gradients are finite


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_demo(tmp_path_factory.mktemp("precision") / "demo")


def command(shards: Path, out: Path, *more: object) -> list[str]:
    """Four steps of two small episodes, without a validation."""
    fewer = ("--way", 3, "--shot", 2, "--query", 2, "--h", 6, "--no-validate-at-end")
    return demo_run(shards, out, *fewer, *more)


def trained(shards: Path, out: Path, *more: object) -> dict[str, torch.Tensor]:
    """The tensors of a run's last checkpoint."""
    assert train.main(command(shards, out, *more)) == 0
    return weights(out)


def scales(out: Path) -> list[float]:
    return [line["loss_scale"] for line in read_records(out)]


@pytest.fixture(scope="module")
def plain(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """A run in float32."""
    return trained(demo, tmp_path_factory.mktemp("plain") / "run", "--precision", "float32")


@pytest.mark.parametrize("flags", [(), ("--precision", "tf32"), ("--deterministic",)])
def test_on_a_cpu_the_default_and_repeated_bits_are_float32(
    demo: Path, plain: dict[str, torch.Tensor], tmp_path: Path, flags: tuple[str, ...]
) -> None:
    workspace, before = os.environ.get(CUBLAS_WORKSPACE), convolutions_use_tf32()
    assert same(trained(demo, tmp_path / "run", *flags), plain)
    assert (os.environ.get(CUBLAS_WORKSPACE), convolutions_use_tf32()) == (workspace, before)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_trains_to_nearly_the_same_weights(
    demo: Path, plain: dict[str, torch.Tensor], tmp_path: Path, precision: str
) -> None:
    found = trained(demo, tmp_path / "run", "--precision", precision)
    names = [name for name in plain if name.startswith(".learner") and plain[name].is_floating_point()]
    moved = max(float((found[name] - plain[name]).abs().max()) for name in names)
    assert 0 < moved < 8e-3  # Adam's four steps are of a thousandth each
    assert ("loss_scale" in read_records(tmp_path / "run")[0]) == (precision == "float16")


def test_the_gradient_of_float16_has_the_loss_scale(demo: Path, tmp_path: Path) -> None:
    found = []
    for precision in ("float16", "float32"):
        config, _ = parse(command(demo, tmp_path / "run", "--chunk", 40, "--precision", precision))
        with join_processes("cpu") as alone:
            run = train.TrainingRun.open(config, alone, resume=False)
            step = TrainingStep(config, alone, run.learner, run.optimizer, run.loss_scale)
            with open_loader(run.shards, run.sampler, config, alone) as loader:
                step.gradient(next(iter(loader)))
        gradients = [parameter.grad for parameter in run.learner.parameters() if parameter.grad is not None]
        found.append(torch.cat([gradient.flatten() for gradient in gradients]))
    assert float((found[0] / FIRST_LOSS_SCALE - found[1]).norm() / found[1].norm()) < 0.2


@pytest.mark.parametrize("done", [2, 4, 6])
def test_a_run_in_float16_resumes_bit_for_bit_with_its_scale(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    monkeypatch.setattr(loss_scale, "GROWTH_STEPS", 3)
    whole = trained(demo, tmp_path / "whole", "--precision", "float16")
    trained(demo, tmp_path / "parts", "--precision", "float16", "--tasks", done)
    assert train.main(["--resume", str(tmp_path / "parts"), "--tasks", "8"]) == 0
    assert same(checkpoint.load(tmp_path / "parts" / LAST_CHECKPOINT)[0], whole)
    assert scales(tmp_path / "parts") == scales(tmp_path / "whole") == [4096, 4096, 8192, 8192]


def test_an_overflow_skips_its_step_and_says_so(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loss_scale, "FIRST_LOSS_SCALE", OVERFLOWING_SCALE)
    first = trained(demo, tmp_path / "run", "--precision", "float16", "--tasks", 2)
    said = "the gradient overflowed float16: this step is skipped, the loss scale is now 5.36871e+08"
    assert said in capsys.readouterr().out.splitlines()
    assert scales(tmp_path / "run") == [OVERFLOWING_SCALE / 2]
    assert not any(name.startswith(".optimizer") for name in first)  # it has not stepped
    assert train.main(["--resume", str(tmp_path / "run"), "--tasks", "4"]) == 0
    assert scales(tmp_path / "run") == [OVERFLOWING_SCALE / 2, OVERFLOWING_SCALE / 4]


def test_gradients_that_overflow_at_a_scale_of_one_end_the_run(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_scale, "LEAST_SCALE", OVERFLOWING_SCALE)
    monkeypatch.setattr(loss_scale, "FIRST_LOSS_SCALE", OVERFLOWING_SCALE)
    with pytest.raises(
        IntegrityError,
        match=r"from episode 0 on overflows float16.*in place of float16, .*another --precision",
    ):
        trained(demo, tmp_path / "run", "--precision", "float16")


def test_a_checkpoint_without_the_scale_of_its_run_is_refused(demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    trained(demo, out, "--tasks", 2)
    settings = json.loads((out / SETTINGS_FILE).read_text()) | {"precision": "float16"}
    (out / SETTINGS_FILE).write_text(json.dumps(settings))
    with pytest.raises(IntegrityError, match=r"last.safetensors: the loss scale of float16"):
        train.main(["--resume", str(out), "--tasks", "4"])


def test_settings_from_before_go_on_in_float32(
    demo: Path, plain: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    trained(demo, out, "--precision", "float32", "--tasks", 4)
    settings = json.loads((out / SETTINGS_FILE).read_text())
    del settings["deterministic"]
    (out / SETTINGS_FILE).write_text(json.dumps(settings))
    assert TrainingConfig.read(out).precision == "float32"
    assert train.main(["--resume", str(out), "--tasks", "8", "--deterministic"]) == 0
    assert same(checkpoint.load(out / LAST_CHECKPOINT)[0], plain)
    with pytest.raises(UsageError, match=r"precision differ"):
        train.main(["--resume", str(out), "--precision", "bfloat16"])


@pytest.mark.slow
def test_processes_agree_about_the_scale_and_the_bits(demo: Path, tmp_path: Path) -> None:
    found = []
    for ranks in (1, 2):
        start = [sys.executable]
        if ranks > 1:
            start += ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--rdzv-backend", "c10d",
                      "--rdzv-endpoint", "localhost:0"]  # fmt: skip
        out = tmp_path / f"of{ranks}"
        words = command(demo, out, "--ordered", "--precision", "float16")
        done = subprocess.run(
            [*start, str(ROOT / "train.py"), *words], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True,
            text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(checkpoint.load(out / LAST_CHECKPOINT)[0])
        assert scales(out) == [4096] * 4
    assert same(*found)
