"""Training at equal CPU time: all queries back-propagated, or a drawn part of them (train.py's --query-h).

    python -m benchmarks.equal_time omniglot    conv4 from random weights, 28 px, 20-way 5-shot, 15 queries a class
    python -m benchmarks.equal_time caltech     MobileNetV1-0.75 with its ImageNet weights, 84 px, 10 queries a class

ProtoNets; contenders are exact (all queries), uniform and neyman (--query-h of them), and fewer: all of as many
queries as cost the same as neyman's. They begin with the same weights and take turns, step by step, until each has
spent its CPU seconds, those of the loader included; then all answer the same episodes of held-out classes. Needs
REAL_DATA. A seed that is finished is not trained again.
"""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch.nn import functional

from benchmarks.common import TableRow, describe_run, markdown_table
from benchmarks.learning import MOBILENET_WEIGHTS, ShardSets
from benchmarks.paper_small import real_data
from learners.evaluate.features import FeatureTable, shared_blocks
from learners.evaluate.scores import mean_interval
from learners.evaluate.task_set import DatasetTasks
from learners.learner import StagedLearner
from learners.lite.engine import FEW_IN_H
from learners.processes import join_processes
from learners.study.report import StudentInterval
from learners.training.components import make_sampler, open_loader, passage
from learners.training.config import TrainingConfig
from learners.training.temperature import fit_temperature
from pipeline.command import run_command
from pipeline.loader.episode import Episode
from pipeline.loader.loader import EpisodeLoader
from pipeline.records import Split
from train import TrainingRun

QUESTION_SEED: Final = 1_000_003  # of the episodes that are asked
QUESTION_QUERIES: Final = 10  # of a class
EXACT: Final = "exact"
NEYMAN: Final = "neyman"
FEWER: Final = "fewer"
ENDLESS: Final = 10**6  # episodes: the clock ends the training


@dataclass(frozen=True, kw_only=True, slots=True)
class EqualTimeSetting:
    """What is trained, and for how long."""

    settings: Mapping[str, Any]
    """Of `TrainingConfig`."""
    weights: str = ""
    """A file in REAL_DATA."""
    query_h: int
    fewer: int
    """Queries of a class that cost what all cost with `query_h`: three passes of each instead of one, and three of H."""
    seconds: tuple[float, ...]
    """CPU seconds of training after which the contenders are asked."""
    held_out: Split

    def contenders(self, query_h: int) -> dict[str, dict[str, Any]]:
        """The settings of each contender that are its own."""
        return {
            EXACT: {},
            "uniform": {"query_h": query_h, "query_sampler": "uniform"},
            NEYMAN: {"query_h": query_h, "query_sampler": "neyman"},
            FEWER: {"query": self.fewer},
        }


EQUAL_TIME: Final = {
    "omniglot": EqualTimeSetting(
        settings={
            "learner": "protonets", "backbone": "conv4", "image_size": 28, "way": 20, "shot": 5, "query": 15,
            "h": 40, "lr": 1e-3, "tasks_per_step": 1, "rotate": True, "chunk": 100,
        },
        query_h=50, fewer=7, seconds=(10, 30, 60), held_out="validation",
    ),
    "caltech": EqualTimeSetting(
        settings={
            "learner": "protonets_cosine", "backbone": "mobilenetv1_075", "image_size": 84, "way": 20, "shot": 5,
            "query": 10, "h": 40, "lr": 3e-5, "tasks_per_step": 2, "flip": True, "fit_temperature": True,
        },
        weights=MOBILENET_WEIGHTS, query_h=40, fewer=5, seconds=(20, 60), held_out="test",
    ),
}  # fmt: skip


@dataclass(slots=True)
class TimedTraining:
    """A contender: its run, and the CPU seconds that it has spent."""

    run: TrainingRun
    episodes: Iterator[Episode]
    spent: float = 0.0
    steps: int = 0

    def due(self, seconds: float) -> bool:
        """Whether one more step brings the time spent nearer to `seconds`."""
        each = self.spent / self.steps if self.steps else 0.0
        return self.spent + each / 2 < seconds

    def step(self) -> None:
        """Train one step."""
        begin = time.process_time()
        self.run.step(self.episodes)
        self.spent += time.process_time() - begin
        self.steps += 1


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutQuestions:
    """Episodes that all contenders are asked; each image passes through a backbone once."""

    config: TrainingConfig
    split: Split
    tasks: int

    def answers(self, run: TrainingRun) -> TableRow:
        """The accuracy and the loss of the run's learner on each episode."""
        config = replace(self.config, query=QUESTION_QUERIES)
        assert isinstance(run.learner, StagedLearner)
        (name,) = run.shards.with_split(self.split)
        sampler = make_sampler(run.shards, config, self.split, QUESTION_SEED)
        tasks = DatasetTasks(
            dataset=name, sampler=sampler, tasks=self.tasks, split=self.split, by_video=False
        )
        dataset, passes = run.shards[name], passage(config)
        blocks = shared_blocks(run.learner, tasks, range(self.tasks), dataset, passes)
        assert blocks is not None, "so few images for so many episodes are worth sharing"
        with EpisodeLoader(run.shards, blocks, image_size=config.image_size, h=0, threads=1) as loader:
            table = FeatureTable(run.learner, blocks, loader, passes)
        correct, losses = [], []
        for plan in (sampler[number] for number in range(self.tasks)):
            classify, _ = table.adapt(plan)
            logits = classify.score(table.features(plan.query.rows))
            labels = torch.from_numpy(plan.query.labels)
            correct.append(float((logits.argmax(1) == labels).double().mean()))
            losses.append(float(functional.cross_entropy(logits, labels)))
        return {"accuracies": correct, "losses": losses}


def train_in_turns(
    setting: EqualTimeSetting, config: TrainingConfig, flags: Namespace, split: Split
) -> Iterator[list[TableRow]]:
    """Train all contenders with one seed; at each number of seconds a row for each."""
    questions = HeldOutQuestions(config, split, flags.questions)
    with ExitStack() as opened:
        members = opened.enter_context(join_processes(config.device))
        contenders: dict[str, TimedTraining] = {}
        for name in flags.contenders:
            own = setting.contenders(flags.query_h or setting.query_h)[name]
            named = replace(config, **own)
            run = TrainingRun.open(named, members, resume=False)
            if named.fit_temperature:
                fit_temperature(run.learner, run.shards, named, members)
            loader = opened.enter_context(open_loader(run.shards, run.sampler, named, members))
            contenders[name] = TimedTraining(run, iter(loader))
        for seconds in flags.seconds or setting.seconds:
            while behind := [one for one in contenders.values() if one.due(seconds)]:
                for one in behind:
                    one.step()
            yield [
                {"contender": name, "seed": config.seed, "seconds": seconds, "spent": one.spent, "steps": one.steps,
                 "tasks": one.run.tasks, **questions.answers(one.run)}
                for name, one in contenders.items()
            ]  # fmt: skip


def comparison(rows: Sequence[TableRow], against: str = EXACT) -> list[TableRow]:
    """A line for each contender at each time: means over seeds, and differences from another on the same episodes."""
    by_key: dict[tuple[float, str], list[TableRow]] = {}
    for row in sorted(rows, key=lambda row: (row["seconds"], row["seed"])):
        by_key.setdefault((row["seconds"], row["contender"]), []).append(row)
    lines = []
    for (seconds, name), own in by_key.items():
        line = {
            "CPU s": seconds, "queries": name, "episodes": sum(row["tasks"] for row in own) / len(own),
            "accuracy, %": _percent(*mean_interval(_over_seeds(own, "accuracies"))),
            "loss": f"{mean_interval(_over_seeds(own, 'losses'))[0]:.4f}",
        }  # fmt: skip
        if name != against and (other := by_key.get((seconds, against))):
            line |= _differences(own, other, "accuracies", f"accuracy - {against}", _percent)
            line |= _differences(own, other, "losses", f"loss - {against}", _plain)
        lines.append(line)
    return lines


def _differences(
    own: Sequence[TableRow],
    other: Sequence[TableRow],
    key: str,
    name: str,
    form: Callable[[float, float], str],
) -> TableRow:
    """The mean difference with its interval over episodes (means over seeds), and over seeds (means over episodes)."""
    pairs = zip(_over_seeds(own, key), _over_seeds(other, key), strict=True)
    found = {f"{name}, episodes": form(*mean_interval([one - two for one, two in pairs]))}
    if len(own) > 1:
        means = [[math.fsum(row[key]) / len(row[key]) for row in rows] for rows in (own, other)]
        seeds = StudentInterval.of([one - two for one, two in zip(*means, strict=True)])
        found[f"{name}, seeds"] = form(seeds.mean, seeds.high - seeds.mean)
    return found


def _over_seeds(rows: Sequence[TableRow], key: str) -> list[float]:
    """The value of each episode, the mean over seeds."""
    return [math.fsum(values) / len(rows) for values in zip(*(row[key] for row in rows), strict=True)]


def _percent(mean: float, half: float) -> str:
    return f"{100 * mean:.2f} ± {100 * half:.2f}"


def _plain(mean: float, half: float) -> str:
    return f"{mean:.4f} ± {half:.4f}"


def _parser() -> ArgumentParser:
    flags = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add = flags.add_argument
    add("setting", choices=EQUAL_TIME)
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of weights, episodes and draws (0 1 2)")
    add("--seconds", type=float, nargs="+", help="CPU seconds of training after which all are asked")
    add("--contenders", nargs="+", default=[EXACT, "uniform", NEYMAN, FEWER], help="(all)")
    add("--query-h", type=int, help="queries that are back-propagated, of uniform and neyman")
    add("--lr", type=float, help="learning rate of all")
    add("--questions", type=int, default=600, help="episodes to be asked (600)")
    add("--of-training", action="store_true", help="ask about training classes: to choose settings by")
    add("--shards", type=Path, help="folder of shard sets by name; built in --out if not given")
    add("--out", type=Path, default=Path("runs/equal-time"), help="of all results (runs/equal-time)")
    return flags


def training_config(flags: Namespace, shards: Path, data: Path, seed: int) -> TrainingConfig:
    """What all contenders have in common."""
    setting = EQUAL_TIME[flags.setting]
    return TrainingConfig(
        shards=str(shards), device="cpu", threads=1, seed=seed, tasks=ENDLESS,
        weights=str(data / setting.weights) if setting.weights else "",
        **{**setting.settings, **({"lr": flags.lr} if flags.lr else {})},
    )  # fmt: skip


def trained_rows(flags: Namespace, config: TrainingConfig, file: Path) -> list[TableRow]:
    """The rows of a seed, from its file or from training, which writes it as they come."""
    setting = EQUAL_TIME[flags.setting]
    wanted = len(flags.contenders) * len(flags.seconds or setting.seconds)
    if file.exists() and len(rows := json.loads(file.read_text(encoding="utf-8"))) == wanted:
        return list(rows)
    rows = []
    for added in train_in_turns(setting, config, flags, "train" if flags.of_training else setting.held_out):
        rows += added
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(rows), encoding="utf-8")
        print(markdown_table(comparison(added)), file=sys.stderr, flush=True)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Train the seeds that are missing, then print the table."""
    flags = _parser().parse_args(argv)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", FEW_IN_H.format(h=".*"), UserWarning)
    name, data, rows = flags.setting, real_data(), []
    shards = flags.shards / name if flags.shards else ShardSets(flags.out / "shards", data).folder(name)
    for seed in flags.seeds:
        config = training_config(flags, shards, data, seed)
        rows += trained_rows(flags, config, flags.out / f"{name}-{seed}.json")
    print(f"{describe_run('benchmarks.equal_time', f'torch {torch.__version__}')}\n")
    print(markdown_table(comparison(rows)))
    if {FEWER, NEYMAN} <= set(flags.contenders):
        print(
            f"\n{markdown_table(comparison([row for row in rows if row['contender'] in (FEWER, NEYMAN)], FEWER))}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
