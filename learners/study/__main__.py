"""How far LITE's gradients are from the exact one: `python -m learners.study --shards shards/md`.

The paper's Figure 4 and Table D.7 with bias and RMSE apart: the exact gradient of a task's loss, estimates of
it by each sampler at each |H|, over tasks. All errors are relative to the exact gradient's length.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, get_args

import torch

from learners import runs as trained
from learners.learner import StagedLearner, Task
from learners.lite.engine import Sampler
from learners.methods.catalogue import About, about, make
from learners.study.gradients import Errors, Study
from learners.study.report import Found, picture, rows, text, values
from pipeline.command import parser, run_command
from pipeline.episodes import EpisodePlan
from pipeline.errors import UsageError
from pipeline.layout import write_whole
from pipeline.loader.episode import Episode
from pipeline.loader.loader import EpisodeLoader
from pipeline.records import SPLITS
from pipeline.samplers import Fixed, MetaDataset
from pipeline.shardset import ShardSet

SAMPLERS: Final[tuple[Sampler, ...]] = tuple(s for s in get_args(Sampler) if s != "exact")
ACTIVE: Final = 0.2  # of the queries; below it a task's softmax is saturated
SATURATED: Final = (
    "in %d of %d tasks the gradient comes from less than %g of the queries: a few classes have all of it, and "
    "neyman looks better than it is in training, where tasks are not so easy, or the softmax not so sharp"
)
log = logging.getLogger(__name__)
PATIENCE: Final = 100  # episodes looked at for each one with enough support images
EXAMPLES: Final = """\
  python -m learners.study --shards shards/caltech --backbone mobilenetv1_075 --weights mobilenet.safetensors
  python -m learners.study --shards shards/caltech --run runs/caltech-protonets --unbalanced --png study.png
  python -m learners.study --shards shards/omniglot --backbone conv4 --image-size 28 --h 10 40 --out study.json
  python -m learners.study --shards shards/md --run runs/md --samplers uniform neyman --tasks 4 --runs 6
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write what was asked for."""
    arguments = _parser().parse_args(argv)
    _check(arguments)
    shards = ShardSet.open(arguments.shards)
    plans = _plans(shards, arguments)
    learner, what = _learner(arguments)
    found: Found = {}
    tasks, worst, begin = [], 0.0, time.perf_counter()
    for number, episode in enumerate(_episodes(shards, plans, arguments, what)):
        study = Study(learner, _task(episode), episode.number, arguments.seed)
        for (sampler, h), errors in _measure(study, arguments):
            found.setdefault((sampler, h), []).append(errors)
        if number == 0 and study.linear is not None:
            worst = max(study.disagreement(*pair) for pair in _checked(arguments))
        tasks.append(_described(episode, study))
        _say(number + 1, arguments, begin)
    table = rows(found)
    saturated = sum(task["active_queries"] < ACTIVE for task in tasks)
    said = {
        "settings": {name: value if isinstance(value, int | list | None) else str(value)
                     for name, value in vars(arguments).items()},
        "learner": what.learner, "backbone": what.backbone, "tasks": tasks,
        "saturated_tasks": saturated, "engine_against_sum": worst,
        "rows": [values(row) for row in table],
    }  # fmt: skip
    if saturated:
        log.warning(SATURATED, saturated, arguments.tasks, ACTIVE)
    if arguments.out:
        write_whole(arguments.out, (json.dumps(said, indent=1) + "\n").encode())
    if arguments.png:
        picture(table, arguments.png, _title(arguments, what))
    sys.stdout.write((json.dumps(said, indent=1) if arguments.json else text(table)) + "\n")
    return 0


def _measure(study: Study, arguments: Namespace) -> Iterator[tuple[tuple[Sampler, int], Errors]]:
    for sampler in arguments.samplers:
        draws = arguments.draws if study.is_linear(sampler) else arguments.runs
        for h in [0] if sampler == "none" else arguments.h:
            yield (sampler, h), study.errors(sampler, h, draws)


def _checked(arguments: Namespace) -> list[tuple[Sampler, int]]:
    """What the engine and the sum of parts are compared on."""
    drawn = [sampler for sampler in arguments.samplers if sampler != "subsample"]
    return [("exact", 0), *((sampler, max(arguments.h)) for sampler in drawn)]


def _learner(arguments: Namespace) -> tuple[StagedLearner, About]:
    """A run's, with its best weights if it has any, or a new one."""
    if arguments.run:
        found = trained.load(arguments.run)
        learner, what = found.net, found.about
    else:
        learner = make(
            arguments.learner, arguments.backbone, weights=arguments.weights, seed=arguments.seed
        )
        what = about(learner, arguments.learner, arguments.image_size)
    if not isinstance(learner, StagedLearner):
        raise UsageError(f"{what.learner} has no support gradients to draw; study another")
    return learner.to(arguments.device), what


def _plans(shards: ShardSet, arguments: Namespace) -> list[EpisodePlan]:
    """Episodes with way x shot support images, or nearly so many, and more than any H."""
    shot = arguments.shot[0] if len(arguments.shot) == 1 else arguments.shot
    choice = {"split": arguments.split, "seed": arguments.seed, "way": arguments.way,
              "query": arguments.query, "datasets": arguments.datasets}  # fmt: skip
    if not arguments.unbalanced:
        enough = max(arguments.shot) + arguments.query
        sampler = Fixed(shards, shot=shot, min_examples_in_class=enough, **choice)
        return [sampler[number] for number in range(arguments.tasks)]
    law = MetaDataset(shards, hierarchy="flat", max_support=arguments.way * shot, **choice)
    looked = (law[number] for number in range(PATIENCE * arguments.tasks))
    large = (plan for plan in looked if len(plan.support) > max(arguments.h))
    plans = list(islice(large, arguments.tasks))
    if len(plans) < arguments.tasks:
        raise UsageError(
            f"of {PATIENCE * arguments.tasks:,} episodes {len(plans)} have more than {max(arguments.h)} "
            "support images; lower --h or raise --shot"
        )
    return plans


def _episodes(
    shards: ShardSet, plans: list[EpisodePlan], arguments: Namespace, what: About
) -> Iterator[Episode]:
    with EpisodeLoader(
        shards, plans, image_size=what.image_size, h=0, device=arguments.device, threads=1
    ) as loader:
        yield from loader


def _task(episode: Episode) -> Task:
    """One batch of queries."""
    return Task(
        images=episode.support.images, labels=episode.support.labels, way=episode.way,
        queries=[(episode.query.images, episode.query.labels)], query_count=len(episode.query),
    )  # fmt: skip


def _described(episode: Episode, study: Study) -> dict[str, Any]:
    return {
        "number": episode.number, "dataset": episode.dataset,
        "shots": episode.plan.shots.tolist(), "queries": len(episode.query),
        "gradient": study.norm2**0.5, "active_queries": study.active,
    }  # fmt: skip


def _say(done: int, arguments: Namespace, begin: float) -> None:
    spent = time.perf_counter() - begin
    left = spent / done * (arguments.tasks - done)
    sys.stderr.write(f"task {done}/{arguments.tasks}  {spent:,.0f} s, {left:,.0f} s left\n")


def _title(arguments: Namespace, what: About) -> str:
    each = f"{', '.join(map(str, arguments.shot))}-shot"
    shots = "Meta-Dataset's shots" if arguments.unbalanced else each
    return (
        f"{what.learner}, {what.backbone}, {what.image_size} px: {arguments.way}-way, {shots}, "
        f"{arguments.tasks} tasks"
    )


def _check(arguments: Namespace) -> None:
    """What cannot be is refused before any work."""
    arguments.h = sorted(set(arguments.h))
    if min(arguments.h) < 1 or min(arguments.draws, arguments.runs, arguments.tasks) < 2:  # noqa: PLR2004
        raise UsageError(
            "--h starts at 1 (the sampler none is 0); --tasks, --draws and --runs at 2, for the intervals"
        )
    if arguments.unbalanced and len(arguments.shot) > 1:
        raise UsageError("--unbalanced draws the shots: give it one --shot, the average")
    for path in filter(None, (arguments.out, arguments.png)):
        if not path.parent.is_dir():
            raise UsageError(f"{path} cannot be written: there is no folder {path.parent}")


def _parser() -> ArgumentParser:
    flags = parser("learners.study", "Bias and RMSE of LITE's gradients.", EXAMPLES)
    add = flags.add_argument
    add("--shards", required=True, metavar="SET", help="shard set: a folder or a URL")
    add("--datasets", nargs="+", metavar="NAME", help="of the set (all)")
    add("--split", default="", choices=SPLITS, help="of the classes ('' is all, the default)")
    add("--run", type=Path, help="a run of train.py, whose learner is studied; else a new one:")
    add("--learner", default="protonets", choices=["protonets", "protonets_cosine", "cnaps",
        "simple_cnaps"], help="(protonets)")  # fmt: skip
    add("--backbone", default="conv4", help="as train.py's (conv4)")
    add("--weights", default="", metavar="FILE", help="the backbone's; random by default")
    add("--image-size", type=int, default=84, metavar="PX", help="(84)")
    add("--way", type=int, default=10, help="classes of a task (10)")
    add("--shot", type=int, nargs="+", default=[10], metavar="K", help="support images per class, or one "
        "number for each; classes with fewer than the largest, and queries, are left out (10)")  # fmt: skip
    add("--query", type=int, default=4, help="query images per class (4)")
    add("--unbalanced", action="store_true", help="shots vary by Meta-Dataset's law")
    add("--samplers", nargs="+", default=list(SAMPLERS), choices=SAMPLERS, help="(all)")
    add("--h", type=int, nargs="+", default=[10, 20, 40, 60, 80], help="(10 20 40 60 80)")
    add("--tasks", type=int, default=8, help="(8)")
    add("--draws", type=int, default=500, help="on each task, where they cost no pass (500)")
    add("--runs", type=int, default=6, help="draws where each costs a pass: with a set encoder, and of "
        "subsample (6)")  # fmt: skip
    add("--seed", type=int, default=0, help="of tasks and draws (0)")
    add("--device", default="cpu", type=torch.device, help="cpu or cuda (cpu)")
    add("--out", type=Path, metavar="FILE", help="write all figures as JSON")
    add("--png", type=Path, metavar="FILE", help="draw them")
    add("--json", action="store_true", help="print JSON and not a table")
    return flags


if __name__ == "__main__":
    sys.exit(run_command(main))
