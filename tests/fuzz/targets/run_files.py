"""Files of runs and evaluations: config.json, metrics.jsonl, settings.json, tasks-0.jsonl, evaluation.json."""

from __future__ import annotations

import atexit
import json
import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any, Final

from learners.evaluate.ledger import SETTINGS_JSON, TaskLedger, begin_or_resume
from learners.evaluate.records import (
    EVALUATION_FILE,
    AdaptationCost,
    DatasetScore,
    EvaluationResult,
    TaskAnswers,
    VideoAnswers,
)
from learners.runs import SETTINGS_FILE, read_run_settings
from learners.training.config import TrainingConfig
from learners.training.journal import METRICS_FILE, RunJournal, read_records
from pipeline.errors import PipelineError
from tests.fuzz.json_mutations import mutate_json
from tests.fuzz.mutations import mutate_bytes

PLAIN_SHARE: Final = 0.2  # of inputs, whose bytes are changed and not their values
LEDGER: Final = "tasks-0.jsonl"
ROOM: Final = Path(tempfile.mkdtemp(prefix="fuzz-run-files-"))
atexit.register(shutil.rmtree, ROOM, ignore_errors=True)


def seeds() -> list[bytes]:
    """A file's name on the first line, then its contents."""
    answers = TaskAnswers(
        dataset="orbit", number=0, way=2, support=4, queries=6, correct=3, adapt_seconds=0.5, mode="clu-ve", user="P1",
        objects=("cup", "key"), videos=(VideoAnswers(video="v", label=1, frames=(0, 1), answers=(1, 0)),),
    )  # fmt: skip
    score = DatasetScore(dataset="orbit", metric="accuracy", value=0.5, interval=0.1, count=3, chance=0.2)
    result = EvaluationResult(
        name="run", protocol="fixed", options={"tasks": 3, "image_size": 32}, learner={"h": 4}, shards="shards",
        scores=(score,), averages=(), cost=AdaptationCost(parameters=1, macs=2.0, steps="1F", seconds=0.1),
    )  # fmt: skip
    records = [{"kind": "step", "tasks": 2, "loss": 1.5, "accuracy": 0.5},
               {"kind": "validation", "tasks": 2, "accuracy": 0.5, "best": True, "datasets": {"a": 0.5}}]  # fmt: skip
    contents: dict[str, list[Any]] = {
        SETTINGS_FILE: [asdict(TrainingConfig(shards="shards"))], METRICS_FILE: records,
        SETTINGS_JSON: [{"protocol": "fixed", "way": 3}], LEDGER: [asdict(answers)] * 2, EVALUATION_FILE: [asdict(result)],
    }  # fmt: skip
    return [_joined(name, [json.dumps(value) for value in values]) for name, values in contents.items()]


def mutate(data: bytes, generator: random.Random) -> bytes:
    name, _, rest = data.partition(b"\n")
    if generator.random() < PLAIN_SHARE:
        return name + b"\n" + mutate_bytes(rest, generator)
    lines = rest.decode(errors="replace").splitlines()
    at = generator.randrange(max(len(lines), 1))
    try:
        lines[at] = json.dumps(mutate_json(json.loads(lines[at]), generator))
    except (ValueError, RecursionError, IndexError):
        return name + b"\n" + mutate_bytes(rest, generator)
    return _joined(name.decode(errors="replace"), lines)


def check(data: bytes) -> None:
    name, _, rest = data.partition(b"\n")
    for known, read in READERS.items():
        if name == known.encode():
            file = ROOM / known
            file.write_bytes(rest)
            try:
                read()
            except PipelineError:
                pass
            finally:
                file.unlink(missing_ok=True)


def _read_settings() -> None:
    config = TrainingConfig.read(ROOM)
    assert config.step_size(0) > 0
    assert config.rate_factor(10**6) >= 0
    read_run_settings(ROOM)


def _read_metrics() -> None:
    with redirect_stdout(StringIO()), RunJournal(ROOM, done=5):
        pass
    assert all(record["tasks"] <= 5 for record in read_records(ROOM))
    assert (ROOM / METRICS_FILE).read_bytes()[-1:] in (b"", b"\n")


def _read_ledger() -> None:
    with TaskLedger(ROOM, 0) as ledger:
        assert all(key.number == task.number for key, task in ledger.tasks().items())


READERS: Final[dict[str, Callable[[], object]]] = {
    SETTINGS_FILE: _read_settings,
    METRICS_FILE: _read_metrics,
    SETTINGS_JSON: lambda: begin_or_resume(ROOM, {"protocol": "fixed"}, leads=True),
    LEDGER: _read_ledger,
    EVALUATION_FILE: lambda: EvaluationResult.load(ROOM),
}


def _joined(name: str, lines: list[str]) -> bytes:
    return "\n".join([name, *lines, ""]).encode(errors="replace")
