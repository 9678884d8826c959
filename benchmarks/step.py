"""A training step: memory, time and arithmetic of several ways to compute a task's gradient.

    python -m benchmarks.step --json step.json           on the CPU, one core, about an hour
    python -m benchmarks.step --device cuda --size 224   on a GPU, with the loader feeding it
    python -m benchmarks.step --quick                    little of everything: does it run?

Random weights and pixels, EfficientNet-B0. Five parts, or those that `--parts` names:
memory    bytes that autograd keeps, and the peak above the memory in use before the task; each case in a
          process of its own
cost      seconds and FLOPs of a task; contenders take turns. as-coded is the VTAB+MD code's schedule with
          an inverse per class, paper-lite the same schedule with our engine and head. as-coded runs only
          once, in the last round, timed while its FLOPs are counted; the others are counted separately
head      the Mahalanobis head against a loop of inverses, forward and backward
compile   a task with networks as they are and with compiled ones, in turns, and the time to compile; not
          with --quick
feed      train.py's steps fed by the loader (`--shards`, or drawn images), then the same episodes from memory;
          `held` is the first speed divided by the second
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import tempfile
import time
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from itertools import chain, product
from pathlib import Path
from typing import Final, get_args

import numpy as np
import torch
from torch.nn import functional

from benchmarks.common import BILLION, TableRow, collect_rows, markdown_table, synchronize
from benchmarks.step_feed import measure_feed
from benchmarks.step_parts import AS_CODED, COMPARED_HEADS, SavedMemory, StepCase, count_flops, memory_mb
from benchmarks.step_server import varied_labels
from learners.compiled import compile_networks
from learners.heads.base import full_precision
from learners.labels import Labels
from learners.learner import StagedLearner
from learners.networks.arithmetic import Precision
from learners.networks.chunk_sizes import DEFAULT_CHUNK
from learners.task import Task, first_images

FEATURE_DIM: Final = 1280
FEW_WARNING: Final = "h=.* is less than 1.5 for each class"
SCHEDULES: Final = ("neyman", "exact", "paper-lite", AS_CODED)


def measure_memory(flags: Namespace) -> Iterator[TableRow]:
    """Memory by N and M, image size and H."""
    context = multiprocessing.get_context("spawn")
    for case in memory_cases(flags):
        with context.Pool(1) as pool:  # so that no other case is in its peak
            yield pool.apply(case_memory, (case, flags.threads))


def memory_cases(flags: Namespace) -> Iterator[StepCase]:
    """All cases: full back-propagation at small sizes only, the others up to the largest."""
    for size, learner in product(flags.memory_sizes, flags.learners):
        least, most = min(flags.counts), max(flags.counts)
        sweeps = [(schedule, n, least, flags.h) for schedule in flags.memory for n in flags.counts]
        sweeps += [(schedule, least, most, flags.h) for schedule in flags.memory]
        sweeps += [("neyman", least, least, h) for h in (0, 20, 100)]
        sweeps += [("full", n, least, flags.h) for n in flags.full]
        for schedule, n, m, h in dict.fromkeys(sweeps):
            yield StepCase(
                learner=learner, backbone=flags.backbone, schedule=schedule, size=size, n=n, m=m, h=h,
                way=flags.memory_way, device=flags.device, chunk=flags.chunk, precision=flags.precision,
            )  # fmt: skip


def case_memory(case: StepCase, threads: int) -> TableRow:
    """The peak memory of one case."""
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", FEW_WARNING)
    learner, task = case.make()
    images = [first_images(queries) for queries, _ in task.queries]
    saved = SavedMemory([*learner.parameters(), *learner.buffers(), task.support, *images])
    before, _ = memory_mb(case.device)
    with saved.hooks():
        case.backward(learner, task)
    _, most = memory_mb(case.device)
    row = {key: asdict(case)[key] for key in ("learner", "schedule", "size", "n", "m", "h")}
    return row | {"kept_mb": saved.peak / 1e6, "peak_mb": most - before}


def largest_case(flags: Namespace) -> StepCase:
    """The large task of the parts cost and compile."""
    return StepCase(
        backbone=flags.backbone, size=flags.size, n=flags.n, m=flags.n, h=flags.h, way=flags.way,
        device=flags.device, chunk=flags.chunk, precision=flags.precision,
    )  # fmt: skip


def measure_cost(flags: Namespace) -> Iterator[TableRow]:
    """Seconds and FLOPs of one large task with each schedule."""
    contenders = {name: replace(largest_case(flags), schedule=name) for name in flags.contenders}
    learner, task = next(iter(contenders.values())).make()
    operations: dict[str, int] = {}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for turn, name in product(range(flags.rounds + 1), contenders):
        if turn < flags.rounds and name == AS_CODED:
            continue
        counts = not turn or name == AS_CODED
        synchronize()
        begin, cpu = time.perf_counter(), time.process_time()
        with count_flops() if counts else nullcontext() as counter:
            contenders[name].backward(learner, task, turn)
        synchronize()
        spent = time.perf_counter() - begin, time.process_time() - cpu
        if counter:
            operations[name] = counter.get_total_flops()
        if turn:
            seconds[name].append(spent)
        learner.zero_grad()
        print(turn, name, spent, operations[name] / BILLION, file=sys.stderr, flush=True)
    for name, runs in seconds.items():
        walls, cpus = (statistics.median(values) for values in zip(*runs, strict=True))
        row = {"schedule": name, "passes": len(runs), "seconds": walls, "cpu_seconds": cpus}
        yield row | {"gflops": operations[name] / BILLION}


def ratios(rows: list[TableRow]) -> Iterator[str]:
    """The cost of each of our schedules over that of each of the papers'."""
    by_schedule = {row["schedule"]: row for row in rows}
    for ours, theirs in product(("neyman", "exact"), ("paper-lite", AS_CODED)):
        if ours in by_schedule and theirs in by_schedule:
            keys = ("seconds", "cpu_seconds", "gflops")
            mine, other = by_schedule[ours], by_schedule[theirs]
            parts = (f"{mine[key] / other[key]:.2f} of its {key}" for key in keys)
            yield f"- {ours} over {theirs}: {', '.join(parts)}"


def measure_heads(flags: Namespace) -> Iterator[TableRow]:
    """Seconds of each head forward and backward, with balanced and unbalanced classes."""
    equal, varied = np.arange(flags.n) % flags.way, varied_labels(flags.n, flags.way)
    for kind, labels in (("balanced", equal), ("unbalanced", varied)):
        support = Labels(labels, flags.way)
        times: dict[str, list[float]] = {name: [] for name in COMPARED_HEADS}
        for name in [*COMPARED_HEADS, *(list(COMPARED_HEADS) * flags.rounds)]:
            times[name].append(head_seconds(name, support, flags))
        median = {name: statistics.median(spent[1:]) for name, spent in times.items()}
        row = {"classes": kind, "sizes": len(np.unique(support.counts))}
        yield (
            row
            | {f"{name}_seconds": spent for name, spent in median.items()}
            | {"times_as_fast": median["loop"] / median["ours"]}
        )


def head_seconds(name: str, labels: Labels, flags: Namespace) -> float:
    """Seconds of one head, once from features to their gradients."""
    generator = torch.Generator().manual_seed(0)
    support, queries = (
        torch.randn(flags.n, FEATURE_DIM, generator=generator).to(flags.device).requires_grad_()
        for _ in range(2)
    )
    answers = torch.arange(flags.n, device=flags.device) % flags.way
    head = COMPARED_HEADS[name]()
    synchronize()
    begin = time.perf_counter()
    with full_precision(support.device):
        logits = head.logits(head.fit(support, labels), queries)
        torch.autograd.backward(functional.cross_entropy(logits, answers))
    synchronize()
    return time.perf_counter() - begin


def measure_compiling(flags: Namespace) -> Iterator[TableRow]:
    """Seconds of a task before and after compiling, for each learner, with N and M of `--n`."""
    for name in flags.learners if not flags.quick else ():
        case = replace(largest_case(flags), learner=name)
        (learner, task), (compiled, _) = case.make(), case.make()
        compile_networks(compiled)
        first = gradient_seconds(case, compiled, task)
        turns = [
            (gradient_seconds(case, learner, task, turn), gradient_seconds(case, compiled, task, turn))
            for turn in range(flags.rounds)
        ]
        plain, after = (statistics.median(spent) for spent in zip(*turns, strict=True))
        yield {
            "learner": name, "size": flags.size, "seconds": plain, "compiled_seconds": after,
            "to_compile_seconds": first - after,
            "of_the_time": statistics.median(b / a for a, b in turns),
        }  # fmt: skip


def gradient_seconds(case: StepCase, learner: StagedLearner, task: Task, turn: int = 0) -> float:
    """Seconds to compute one gradient."""
    synchronize()
    begin = time.perf_counter()
    case.backward(learner, task, turn)
    synchronize()
    learner.zero_grad()
    return time.perf_counter() - begin


STEP_PARTS: Final = {
    "memory": measure_memory, "cost": measure_cost, "head": measure_heads, "compile": measure_compiling, "feed": measure_feed
}  # fmt: skip


def parse_flags() -> Namespace:
    """The flags of the command line."""
    parser = ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--parts", nargs="+", choices=STEP_PARTS, default=list(STEP_PARTS))
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--chunk", type=int, default=DEFAULT_CHUNK, help="images at a time")
    parser.add_argument("--precision", choices=get_args(Precision), default="tf32", help="of the networks")
    parser.add_argument("--backbone", default="efficientnet_b0")
    parser.add_argument("--h", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--learners", nargs="+", default=["protonets", "simple_cnaps"])
    memories = parser.add_argument_group("memory")
    memories.add_argument("--memory-sizes", type=int, nargs="+", default=[84, 224])
    memories.add_argument("--memory", nargs="+", default=["neyman", "exact", "checkpointing"])
    memories.add_argument("--memory-way", type=int, default=20)
    memories.add_argument("--counts", type=int, nargs="+", default=[100, 1000], help="N and M")
    memories.add_argument("--full", type=int, nargs="*", default=[40, 100], help="N of full")
    costs = parser.add_argument_group("cost, head and compile")
    costs.add_argument("--contenders", nargs="+", choices=SCHEDULES, default=list(SCHEDULES))
    costs.add_argument("--size", type=int, default=84, help="pixels; of feed, too")
    costs.add_argument("--n", type=int, default=500, help="N, and M")
    costs.add_argument("--way", type=int, default=50)
    feeds = parser.add_argument_group("feed")
    feeds.add_argument("--shards", help="with a training split; drawn if not given")
    feeds.add_argument("--steps", type=int, default=5, help="of 16 tasks")
    parser.add_argument("--quick", action="store_true", help="little of everything")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return shorten(parser.parse_args())


def shorten(flags: Namespace) -> Namespace:
    """Little of everything with --quick."""
    if flags.quick:
        flags.backbone, flags.size, flags.memory_sizes = "mobilenetv1_075", 32, [32]
        flags.counts, flags.full, flags.memory_way = [20, 60], [20], 5
        flags.n, flags.way, flags.h, flags.rounds, flags.steps = 60, 5, 10, 1, 1
    return flags


def main() -> None:
    flags = parse_flags()
    torch.set_num_threads(flags.threads)
    warnings.filterwarnings("ignore", FEW_WARNING)
    name = torch.cuda.get_device_name() if flags.device == "cuda" else f"CPU, {flags.threads} threads"
    print(f"{name}, torch {torch.__version__}, {flags.backbone}", flush=True)
    results: TableRow = {"device": name, "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as scratch:
        flags.scratch = Path(scratch)
        for part in flags.parts:
            rows = collect_rows(part, STEP_PARTS[part](flags), results, flags.json)
            lines = ratios(rows) if part == "cost" else ()
            print("\n".join(chain([f"\n### {part}\n", markdown_table(rows), ""], lines)), flush=True)


if __name__ == "__main__":
    main()
