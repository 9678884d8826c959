"""The six commands that read and write files, small, with what each comes to when nothing disturbs it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import kill
from pipeline.layout import DatasetLayout
from tests.faults.command_server import CommandOutcome, CommandServer
from tests.images import fill_class_folders

BUILD: Final = "pipeline.build.__main__"
VERIFY: Final = "pipeline.verify.__main__"
LOADER: Final = "tests.faults.loader_pass"
TRAIN: Final = "train"
EVALUATE: Final = "learners.evaluate.__main__"
CLASSIFIER: Final = "tests.faults.classifier_save"
BUILD_MODULES: Final = (BUILD, VERIFY)
MODULES: Final = (*BUILD_MODULES, LOADER, TRAIN, EVALUATE, CLASSIFIER)
SIZE: Final = 32
TASKS: Final = ("--way", "3", "--shot", "2", "--query", "1")


@dataclass(frozen=True, slots=True)
class SmallCommand:
    """A command whose output can be compared."""

    name: str
    module: str
    argv: list[str]
    prepare: Callable[[], None]
    """Puts the files back to how they are before it runs."""
    result: Callable[[], dict[str, str]]
    """What it has made, by name; empty for a command that only prints."""
    again: Callable[[], list[str]] | None = None
    """The arguments with which it goes on, if not the same."""

    def finished(self, outcome: CommandOutcome) -> dict[str, str]:
        """What a command that ended with 0 has made."""
        try:
            return self.result() or {"output": outcome.output}
        except OSError as error:
            return {"missing": str(error)}


class SmallFiles:
    """The files of the six commands, in a folder that is empty; each command has a folder of its own to write to."""

    def __init__(self, folder: Path) -> None:
        self.watched, self.work = folder / "watched", folder / "work"
        self.out = self.watched / "out"
        self.inputs = self.watched / "inputs"
        for path in (self.inputs, self.work, self.out):
            path.mkdir(parents=True)
        self._archive = kill.write_noise_archive(self.inputs / "noise.tar.gz", images=8)
        self._photos = fill_class_folders(self.inputs / "photos", {"cat": 3, "dog": 3})

    def build_inputs(self, server: CommandServer, *, run: bool = True) -> None:
        """Build the shards and train the run that the commands read; without `run` only those of builds."""
        demo = ["--dataset", "demo", "--out", str(self.inputs / "demo"), "--quiet", "--workers", "1"]
        demo += ["--sizes", str(SIZE), "--encode", f"{SIZE}=jpeg:95", "--limit-per-class", "3"]
        inputs = [(BUILD, demo), (BUILD, self._build(self.inputs / "pets"))]
        for module, argv in inputs + [(TRAIN, self._training(self.inputs / "run"))] * run:
            done = server.run(module, argv)
            assert done.code == 0, done.errors

    def commands(self) -> list[SmallCommand]:
        """The six, in the order of the data."""
        shards, run = self.out / "shards", self.out / "run"
        return [
            SmallCommand("build", BUILD, self._build(shards), self._clear, lambda: kill.file_hashes(shards)),
            SmallCommand(
                "repair", VERIFY,
                [str(shards), "--repair", "--quiet", "--dataset", "folder", "--source", str(self._archive), "--workers", "1"],
                lambda: self._damaged(shards), lambda: kill.file_hashes(shards),
            ),
            SmallCommand("loader", LOADER, [str(self.inputs / "demo")], self._clear, dict),
            SmallCommand(
                "training", TRAIN, self._training(run), self._clear, lambda: _weights(run),
                again=lambda: ["--resume", str(run)] if (run / "last.safetensors").exists() else self._training(run),
            ),
            SmallCommand(
                "evaluation", EVALUATE,
                ["--checkpoint", str(self.inputs / "run"), "--shards", str(self.inputs / "demo"), "--protocol", "fixed",
                 "--tasks", "3", *TASKS, "--threads", "1", "--device", "cpu", "--out", str(self.out / "results")],
                self._clear, lambda: _scores(self.out / "results"),
            ),
            SmallCommand(
                "classifier", CLASSIFIER,
                [str(self.inputs / "run"), str(self._photos), str(self.out / "pets.safetensors")],
                self._clear, lambda: _hashes(self.out.glob("*.safetensors")),
            ),
        ]  # fmt: skip

    def _build(self, out: Path) -> list[str]:
        words = ["--dataset", "folder", "--source", str(self._archive), "--out", str(out), "--quiet"]
        return [
            *words,
            "--sizes",
            "16",
            "24",
            "--encode",
            "16=raw",
            "24=jpeg:95",
            "--shard-samples",
            "4",
            "--workers",
            "1",
        ]

    def _training(self, out: Path) -> list[str]:
        words = [
            "--shards",
            str(self.inputs / "demo"),
            "--out",
            str(out),
            "--learner",
            "protonets",
            "--backbone",
            "conv4",
        ]
        words += [
            "--image-size",
            str(SIZE),
            "--h",
            "4",
            "--tasks",
            "3",
            "--tasks-per-step",
            "1",
            "--save-every",
            "1",
        ]
        words += ["--validate-every", "2", "--validation-tasks", "1", "--threads", "1", "--device", "cpu"]
        return [*words, *TASKS]

    def _clear(self) -> None:
        for path in self.out.iterdir():  # the folder itself may be a disk
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _damaged(self, shards: Path) -> None:
        """A set with a damaged tar, a lost .idx and no index."""
        self._clear()
        shutil.copytree(self.inputs / "pets", shards)
        layout = DatasetLayout(shards)
        with layout.tar(16, 0).open("r+b") as tar:
            tar.seek(700)
            tar.write(b"damage")
        layout.tar(24, 1).with_suffix(".idx").unlink()
        layout.index.unlink()


def _hashes(files: object) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}  # type: ignore[attr-defined]


def _weights(run: Path) -> dict[str, str]:
    """The checkpoints, bit for bit, and which steps the metrics have."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [(line["kind"], line["tasks"], line["accuracy"]) for line in lines]
    return {
        **_hashes(run.glob("*.safetensors")),
        "metrics": repr(steps),
        "curve": str((run / "curve.png").exists()),
    }


def _scores(out: Path) -> dict[str, str]:
    """The figures of an evaluation, without its times and without its notes, which say what could not be checked."""
    values = json.loads((out / "evaluation.json").read_text())
    values.pop("notes")
    values["cost"].pop("seconds")
    return {key: json.dumps(value) for key, value in values.items()}
