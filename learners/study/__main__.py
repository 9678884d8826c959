"""How far LITE's gradients are from the exact one: `python -m learners.study --shards shards/md`.

The paper's Figure 4 and Table D.7 with bias and RMSE apart: for each task the exact gradient of its loss, and
estimates of it by each sampler at each |H|. With --query-h the same for draws of queries. With --precision the error
of the exact gradient in each precision against float64; on a CPU by emulation (`learners.study.tensor_cores`). All
errors are relative to the exact gradient's length.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, get_args

from learners.learner import StagedLearner
from learners.lite.engine import SamplerName
from learners.methods.catalogue import LEARNERS, LearnerInfo, describe_learner, make_learner
from learners.networks.arithmetic import network_precision
from learners.processes import choose_device, out_of_memory_in_words
from learners.runs import load_run
from learners.study.gradients import QUERY_SAMPLERS, GradientErrors, GradientStudy, StudiedSampler
from learners.study.report import (
    StudentInterval,
    TaskErrors,
    format_table,
    plot_study,
    row_values,
    study_rows,
)
from learners.study.rounding import PRECISIONS, rounding_errors
from learners.task import Task
from pipeline.command import command_parser, run_command
from pipeline.episodes import EpisodePlan
from pipeline.errors import UsageError
from pipeline.layout import write_atomically
from pipeline.loader.episode import Episode
from pipeline.loader.loader import EpisodeLoader
from pipeline.records import SPLITS
from pipeline.samplers import Fixed, MetaDataset
from pipeline.shardset import ShardSet

STUDIED_SAMPLERS: Final[tuple[SamplerName, ...]] = tuple(s for s in get_args(SamplerName) if s != "exact")
ACTIVE_SHARE: Final = 0.2  # of the queries; below it a task's softmax is saturated
SATURATED_WARNING: Final = (
    "in %d of %d tasks the gradient comes from less than %g of the queries: a few classes have all of it, and "
    "neyman looks better than it is in training, where tasks are not so easy, or the softmax not so sharp"
)
EFFECTIVE_QUERIES: Final = (
    "effective queries, (sum of norms)^2 / (M x sum of squares): %.3f (%.3f to %.3f) of M = %d\n"
)
FROZEN_AT_RANDOM: Final = (
    "the backbone is frozen and its weights are random: these are gradients on features that mean nothing"
)
EMULATED: Final = "--precision is emulated on a CPU, where a GPU may leave some convolutions in float32"
TRIES_PER_TASK: Final = 100  # episodes drawn to find one with enough support images
STUDY_EXAMPLES: Final = """\
  python -m learners.study --shards shards/caltech --backbone mobilenetv1_075 --weights mobilenet.safetensors
  python -m learners.study --shards shards/caltech --run runs/caltech-protonets --unbalanced --png study.png
  python -m learners.study --shards shards/omniglot --backbone conv4 --image-size 28 --h 10 40 --out study.json
  python -m learners.study --shards shards/md --run runs/md --samplers uniform neyman --tasks 4 --runs 6
  python -m learners.study --shards shards/md --run runs/md --query 10 --query-h 10 50
  python -m learners.study --shards shards/md --run runs/md --samplers none --precision tf32 float16 bfloat16
"""
log = logging.getLogger(__name__)


@network_precision("float32")
@out_of_memory_in_words("a smaller --image-size, fewer queries (--query) or --device cpu need less of it")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write the files that the flags name."""
    arguments = _parser().parse_args(argv)
    _check_arguments(arguments)
    shards = ShardSet.open(arguments.shards)
    plans = _episode_plans(shards, arguments)
    learner, info = _load_learner(arguments)
    measured: TaskErrors = {}
    tasks, worst, begin = [], 0.0, time.perf_counter()
    for number, episode in enumerate(_load_episodes(shards, plans, arguments, info)):
        task = _task(episode)
        study = GradientStudy(learner, task, episode.number, arguments.seed)
        for (sampler, h), errors in chain(_measure(study, arguments), _round(learner, task, arguments)):
            measured.setdefault((sampler, h), []).append(errors)
        if number == 0 and study.is_linear("exact"):
            worst = max(study.disagreement(*pair) for pair in _compared_settings(arguments))
        tasks.append(_describe_task(episode, study, arguments))
        _print_progress(number + 1, arguments, begin)
    table = study_rows(measured)
    saturated = sum(task["active_queries"] < ACTIVE_SHARE for task in tasks)
    result = {
        "settings": {name: value if isinstance(value, int | list | None) else str(value)
                     for name, value in vars(arguments).items()},
        "learner": info.learner, "backbone": info.backbone, "tasks": tasks,
        "saturated_tasks": saturated, "engine_against_sum": worst,
        "rows": [row_values(row) for row in table],
    }  # fmt: skip
    if saturated:
        log.warning(SATURATED_WARNING, saturated, arguments.tasks, ACTIVE_SHARE)
    if arguments.out:
        write_atomically(arguments.out, (json.dumps(result, indent=1) + "\n").encode())
    if arguments.png:
        plot_study(table, arguments.png, _title(arguments, info))
    sys.stdout.write((json.dumps(result, indent=1) if arguments.json else format_table(table)) + "\n")
    if arguments.query_h and not arguments.json:
        share = StudentInterval.of([task["effective_queries"] for task in tasks])
        sys.stdout.write(EFFECTIVE_QUERIES % (share.mean, share.low, share.high, tasks[0]["queries"]))
    return 0


def _measure(
    study: GradientStudy, arguments: Namespace
) -> Iterator[tuple[tuple[StudiedSampler, int], GradientErrors]]:
    """The errors of each sampler at each |H| on one task."""
    for sampler, sizes in _studied(arguments):
        draws = arguments.draws if study.is_linear(sampler) else arguments.runs
        for h in sizes:
            yield (sampler, h), study.errors(sampler, h, draws)


def _round(
    learner: StagedLearner, task: Task, arguments: Namespace
) -> Iterator[tuple[tuple[StudiedSampler, int], GradientErrors]]:
    """The errors of each precision on one task."""
    for precision, errors in rounding_errors(learner, task, arguments.precision):
        yield (precision, 0), errors


def _studied(arguments: Namespace) -> Iterator[tuple[StudiedSampler, list[int]]]:
    """What is measured, each at which numbers of images with gradient; 0 where there is no number."""
    for sampler in arguments.samplers:
        yield sampler, [0] if sampler == "none" else arguments.h
    if arguments.query_h:
        for sampler in QUERY_SAMPLERS:
            yield sampler, arguments.query_h


def _compared_settings(arguments: Namespace) -> list[tuple[StudiedSampler, int]]:
    """Samplers and |H| at which a gradient by the engine is compared with the weighted sum."""
    drawn = [(sampler, max(sizes)) for sampler, sizes in _studied(arguments)
             if sampler != "subsample"]  # fmt: skip
    return [("exact", 0), *drawn]


def _load_learner(arguments: Namespace) -> tuple[StagedLearner, LearnerInfo]:
    """The learner of a run, with its best weights if there are any, or a new one."""
    if arguments.run:
        run = load_run(arguments.run)
        learner, info = run.net, run.info
    else:
        entry = LEARNERS[arguments.learner]
        weights = arguments.weights = arguments.weights or entry.first_weights
        if entry.frozen_at_random(weights):
            log.warning(FROZEN_AT_RANDOM)
        learner = make_learner(arguments.learner, arguments.backbone, weights=weights, seed=arguments.seed)
        info = describe_learner(learner, arguments.learner, arguments.image_size)
    if not isinstance(learner, StagedLearner):
        raise UsageError(f"{info.learner} has no support gradients to draw; study another")
    return learner.to(arguments.device), info


def _episode_plans(shards: ShardSet, arguments: Namespace) -> list[EpisodePlan]:
    """Plans of episodes with about way x shot support images, and more than the largest |H|."""
    shot = arguments.shot[0] if len(arguments.shot) == 1 else arguments.shot
    choice = {"split": arguments.split, "seed": arguments.seed, "way": arguments.way,
              "query": arguments.query, "datasets": arguments.datasets}  # fmt: skip
    if not arguments.unbalanced:
        enough = max(arguments.shot) + arguments.query
        sampler = Fixed(shards, shot=shot, min_examples_in_class=enough, **choice)
        return [sampler[number] for number in range(arguments.tasks)]
    varied = MetaDataset(shards, hierarchy="flat", max_support=arguments.way * shot, **choice)
    drawn = (varied[number] for number in range(TRIES_PER_TASK * arguments.tasks))
    large = (plan for plan in drawn if len(plan.support) > max(arguments.h))
    plans = list(islice(large, arguments.tasks))
    if len(plans) < arguments.tasks:
        raise UsageError(
            f"of {TRIES_PER_TASK * arguments.tasks:,} episodes {len(plans)} have more than {max(arguments.h)} "
            "support images; lower --h or raise --shot"
        )
    return plans


def _load_episodes(
    shards: ShardSet, plans: list[EpisodePlan], arguments: Namespace, info: LearnerInfo
) -> Iterator[Episode]:
    with EpisodeLoader(
        shards, plans, image_size=info.image_size, h=0, device=arguments.device, threads=1
    ) as loader:
        yield from loader


def _task(episode: Episode) -> Task:
    """A task whose queries are one batch."""
    return Task(
        images=episode.support.images, labels=episode.support.labels, way=episode.way,
        queries=[(episode.query.images, episode.query.labels)], query_count=len(episode.query),
    )  # fmt: skip


def _describe_task(episode: Episode, study: GradientStudy, arguments: Namespace) -> dict[str, Any]:
    described = {
        "number": episode.number, "dataset": episode.dataset,
        "shots": episode.plan.shots.tolist(), "queries": len(episode.query),
        "gradient": study.norm2**0.5, "active_queries": study.active,
    }  # fmt: skip
    if arguments.query_h:
        described["effective_queries"] = study.effective_queries
    return described


def _print_progress(done: int, arguments: Namespace, begin: float) -> None:
    spent = time.perf_counter() - begin
    left = spent / done * (arguments.tasks - done)
    sys.stderr.write(f"task {done}/{arguments.tasks}  {spent:,.0f} s, {left:,.0f} s left\n")


def _title(arguments: Namespace, info: LearnerInfo) -> str:
    each = f"{', '.join(map(str, arguments.shot))}-shot"
    shots = "Meta-Dataset's shots" if arguments.unbalanced else each
    return (
        f"{info.learner}, {info.backbone}, {info.image_size} px: {arguments.way}-way, {shots}, "
        f"{arguments.tasks} tasks"
    )


def _check_arguments(arguments: Namespace) -> None:
    """Refuse flags that cannot work before anything is read."""
    arguments.h, arguments.query_h = sorted(set(arguments.h)), sorted(set(arguments.query_h))
    if min(arguments.h + arguments.query_h) < 1 or min(arguments.draws, arguments.runs, arguments.tasks) < 2:  # noqa: PLR2004
        raise UsageError(
            "--h and --query-h start at 1 (the sampler none is 0); --tasks, --draws and --runs at 2, for the intervals"
        )
    if arguments.unbalanced and len(arguments.shot) > 1:
        raise UsageError("--unbalanced draws the shots: give it one --shot, the average")
    if arguments.precision and arguments.device.type != "cuda":
        log.info(EMULATED)
    for path in filter(None, (arguments.out, arguments.png)):
        if not path.parent.is_dir():
            raise UsageError(f"{path} cannot be written: there is no folder {path.parent}")


def _parser() -> ArgumentParser:
    flags = command_parser("learners.study", "Bias and RMSE of LITE's gradients.", STUDY_EXAMPLES)
    add = flags.add_argument
    add("--shards", required=True, metavar="SET", help="shard set: a folder or a URL")
    add("--datasets", nargs="+", metavar="NAME", help="of the set (all)")
    add("--split", default="", choices=SPLITS, help="of the classes ('' is all, the default)")
    add("--run", type=Path, help="study the learner of a run of train.py; without it a new one:")
    add("--learner", default="protonets", choices=["protonets", "protonets_cosine", "lda", "cnaps",
        "simple_cnaps"], help="(protonets)")  # fmt: skip
    add("--backbone", default="conv4", help="as train.py's (conv4)")
    add("--weights", default="", metavar="FILE", help="the backbone's: a file, pretrained or random "
        "(pretrained where the learner keeps it as it is, else random)")  # fmt: skip
    add("--image-size", type=int, default=84, metavar="PX", help="(84)")
    add("--way", type=int, default=10, help="classes of a task (10)")
    add("--shot", type=int, nargs="+", default=[10], metavar="K", help="support images per class, or one "
        "number for each; classes with fewer than the largest, and queries, are left out (10)")  # fmt: skip
    add("--query", type=int, default=4, help="query images per class (4)")
    add("--unbalanced", action="store_true", help="shots vary by Meta-Dataset's law")
    add("--samplers", nargs="+", default=list(STUDIED_SAMPLERS), choices=STUDIED_SAMPLERS, help="(all)")
    add("--h", type=int, nargs="+", default=[10, 20, 40, 60, 80], help="(10 20 40 60 80)")
    add("--query-h", type=int, nargs="+", default=[], metavar="N",
        help="draws of so many queries as well, with all support images")  # fmt: skip
    add("--precision", nargs="+", default=[], choices=PRECISIONS, help="the networks in these as well, against "
        "float64; on a CPU emulated")  # fmt: skip
    add("--tasks", type=int, default=8, help="(8)")
    add("--draws", type=int, default=500, help="on each task, where they cost no pass (500)")
    add("--runs", type=int, default=6, help="draws where each costs a pass: with a set encoder, and of "
        "subsample (6)")  # fmt: skip
    add("--seed", type=int, default=0, help="of tasks and draws (0)")
    add("--device", default="cpu", type=choose_device, help="auto, cpu or cuda (cpu)")
    add("--out", type=Path, metavar="FILE", help="write all figures as JSON")
    add("--png", type=Path, metavar="FILE", help="draw them")
    add("--json", action="store_true", help="print JSON and not a table")
    return flags


if __name__ == "__main__":
    sys.exit(run_command(main))
