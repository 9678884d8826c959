"""A run that meets the end of its memory goes on with the same task in half the chunks, and resumes with those."""

from __future__ import annotations

from pathlib import Path

import pytest

import train
from learners.networks.chunk_sizes import ChunkSizes
from learners.runs import LAST_CHECKPOINT, read_checkpoint
from learners.training.config import TrainingConfig
from learners.training.journal import read_records
from pipeline.command import run_command
from pipeline.errors import UsageError
from tests.learners.scarce_memory import memory_for
from tests.small_runs import demo_run, same, small_demo, weights


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_demo(tmp_path_factory.mktemp("chunks") / "demo")


def command(shards: Path, out: Path, *more: object) -> list[str]:
    """Three steps of two episodes, in each 12 support images and 12 queries."""
    return demo_run(shards, out, "--tasks", 6, *more)


def same_weights(one: Path, other: Path) -> bool:
    return same(weights(one), weights(other))


def sizes_of_steps(out: Path) -> list[tuple[int, int]]:
    return [(r["chunk"], r["forward_chunk"]) for r in read_records(out) if r["kind"] == "step"]


@pytest.mark.parametrize("flags", [(), ("--query-h", 3)])  # with the queries' gradients half made
def test_out_of_memory_halves_the_chunks_and_the_same_task_begins_again(
    demo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, flags: tuple[object, ...]
) -> None:
    with memory_for(5):
        assert train.main(command(demo, tmp_path / "halved", *flags)) == 0
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(" (")[0] for line in lines] == [
        "out of memory with chunks of 40 images",
        "out of memory with chunks of 20 images",
        "out of memory with chunks of 10 images",
    ]
    assert sizes_of_steps(tmp_path / "halved") == [(5, 5)] * 3
    assert train.main(command(demo, tmp_path / "small", *flags, "--chunk", 5)) == 0
    assert same_weights(tmp_path / "halved", tmp_path / "small")


def test_a_resumed_run_goes_on_in_the_chunks_of_its_checkpoint(demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "parts"
    with memory_for(5):
        assert train.main(command(demo, tmp_path / "whole")) == 0
        assert train.main(command(demo, out, "--tasks", 2)) == 0
    assert TrainingConfig.read(out).chunk == "auto"
    assert read_checkpoint(out / LAST_CHECKPOINT)[0].chunks == ChunkSizes(5, 5)
    assert train.main(["--resume", str(out), "--tasks", "6"]) == 0  # there is memory for more now
    assert sizes_of_steps(out) == [(5, 5)] * 3
    assert same_weights(out, tmp_path / "whole")


def test_validation_halves_its_chunks_too(
    demo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with memory_for(12, forward=11):
        assert train.main(command(demo, tmp_path / "run", "--tasks", 2, "--chunk", 12)) == 0
    assert "going on with chunks of 6 images" in caplog.text


def test_one_image_that_does_not_fit_ends_the_run_with_a_sentence(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with memory_for(0):
        assert run_command(train.main, command(demo, tmp_path / "run")) == UsageError.exit_code
    (error,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error"))
    assert error == (
        "error: out of memory with one image at a time (CUDA out of memory. Tried to pass 1 images.); half "
        "precision, smaller images or a smaller network need less"
    )


@pytest.mark.parametrize(
    "flags", [("--sampler", "paper-lite"), ("--backbone-norm", "batch", "--backbone", "resnet18")]
)
def test_where_chunks_decide_they_are_forty_and_too_little_memory_is_a_sentence(
    demo: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    assert train.main(command(demo, tmp_path / "run", *flags, "--tasks", 2, "--chunk-memory", 0.001)) == 0
    assert sizes_of_steps(tmp_path / "run") == [(40, 40)]
    with (
        memory_for(5),
        pytest.raises(UsageError, match="a smaller --chunk, --precision bfloat16 or a smaller"),
    ):
        train.main(command(demo, tmp_path / "halved", *flags))


def test_a_limit_chooses_chunks_that_are_said_and_recorded(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "limited"
    assert train.main(command(demo, out, "--tasks", 2, "--chunk-memory", 0.02)) == 0
    ((graph, forward),) = sizes_of_steps(out)
    assert 1 < graph < forward <= 40
    assert f"chunks of {graph} images with a graph and of {forward} without" in capsys.readouterr().out
    assert read_checkpoint(out / LAST_CHECKPOINT)[0].chunks == (graph, forward)
    numbers = ("--chunk", graph, "--forward-chunk", forward)
    assert train.main(command(demo, tmp_path / "numbers", *numbers, "--tasks", 2)) == 0
    assert same_weights(out, tmp_path / "numbers")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"chunk": 0}, "--chunk starts at 1"),
        ({"chunk": 4, "forward_chunk": -1}, "--forward-chunk and --chunk-memory at 0"),
        ({"forward_chunk": 8}, "--forward-chunk goes with a number of --chunk"),
        ({"chunk": 4, "forward_chunk": 8, "sampler": "paper-lite"}, "have one size of batches"),
        ({"chunk": 4, "chunk_memory": 1.0}, "leave it out, or --chunk 4"),
    ],
)
def test_chunks_that_contradict_one_another_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainingConfig(shards="x", **settings)  # type: ignore[arg-type]
