"""A training step: memory, time and arithmetic of the ways to take a task's gradient.

    python -m benchmarks.step --json step.json           on the CPU, one core, about an hour
    python -m benchmarks.step --device cuda --size 224   on a GPU, with the loader feeding it
    python -m benchmarks.step --quick                    little of everything: does it run?

Random weights and pixels, EfficientNet-B0. Five parts, or those that `--parts` names:
memory    bytes that autograd keeps, and the peak above what was there before the task; each case in a
          process of its own
cost      seconds and FLOPs of a task; contenders take turns. as-coded is the VTAB+MD code's schedule with
          an inverse per class, paper-lite the same schedule with this engine and head. as-coded runs
          once, in the last round, timed while its FLOPs are counted; the others are counted apart
head      the Mahalanobis head against a loop of inverses, forward and backward
compile   a task with the networks as they are and compiled, in turns, and what compiling takes; not on
          --quick
feed      train.py's step with the loader feeding it (`--shards`, or drawn pictures), and with the last
          step's episodes again; `held` is the share of the second speed that the first reaches
"""

from __future__ import annotations

import json
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
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from benchmarks.loader_gpu import table
from benchmarks.loader_gpu_parts import synchronize
from benchmarks.step_feed import feed
from benchmarks.step_parts import CODED, HEADS, Case, Saved, flops, memory_mb
from learners.compiled import compile_networks
from learners.heads.base import full_precision
from learners.labels import Labels
from learners.learner import StagedLearner, Task

GIGA: Final = 1e9
DIM: Final = 1280
FEW: Final = "h=.* is less than 1.5 for each class"
CONTENDERS: Final = ("neyman", "exact", "paper-lite", CODED)

Row = dict[str, Any]


def memory(wish: Namespace) -> Iterator[Row]:
    """Against N and M, the size of images, and H."""
    context = multiprocessing.get_context("spawn")
    for case in cases(wish):
        with context.Pool(1) as alone:  # what another case left behind is not in its peak
            yield alone.apply(remember, (case, wish.threads))


def cases(wish: Namespace) -> Iterator[Case]:
    """Full back-propagation where it is small; the others up to the largest."""
    for size, learner in product(wish.memory_sizes, wish.learners):
        least, most = min(wish.counts), max(wish.counts)
        sweeps = [(schedule, n, least, wish.h) for schedule in wish.memory for n in wish.counts]
        sweeps += [(schedule, least, most, wish.h) for schedule in wish.memory]
        sweeps += [("neyman", least, least, h) for h in (0, 20, 100)]
        sweeps += [("full", n, least, wish.h) for n in wish.full]
        for schedule, n, m, h in dict.fromkeys(sweeps):
            yield Case(
                learner=learner, backbone=wish.backbone, schedule=schedule, size=size, n=n, m=m, h=h,
                way=wish.memory_way, device=wish.device, bfloat16=wish.bfloat16,
            )  # fmt: skip


def remember(case: Case, threads: int) -> Row:
    """Peaks of one case."""
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", FEW)
    learner, task = case.make()
    images = [queries for queries, _ in task.queries]
    saved = Saved([*learner.parameters(), *learner.buffers(), task.images, *images])
    before, _ = memory_mb(case.device)
    with saved.hooks():
        case.backward(learner, task)
    _, most = memory_mb(case.device)
    row = {key: asdict(case)[key] for key in ("learner", "schedule", "size", "n", "m", "h")}
    return row | {"kept_mb": saved.peak / 1e6, "peak_mb": most - before}


def largest(wish: Namespace) -> Case:
    """The task of cost and compile."""
    return Case(
        backbone=wish.backbone, size=wish.size, n=wish.n, m=wish.n, h=wish.h, way=wish.way,
        device=wish.device, bfloat16=wish.bfloat16,
    )  # fmt: skip


def cost(wish: Namespace) -> Iterator[Row]:
    """One task of the largest kind."""
    contenders = {name: replace(largest(wish), schedule=name) for name in wish.contenders}
    learner, task = next(iter(contenders.values())).make()
    operations: dict[str, int] = {}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for turn, name in product(range(wish.rounds + 1), contenders):
        if turn < wish.rounds and name == CODED:
            continue
        counts = not turn or name == CODED
        synchronize()
        begin, cpu = time.perf_counter(), time.process_time()
        with flops() if counts else nullcontext() as counter:
            contenders[name].backward(learner, task, turn)
        synchronize()
        spent = time.perf_counter() - begin, time.process_time() - cpu
        if counter:
            operations[name] = counter.get_total_flops()
        if turn:
            seconds[name].append(spent)
        learner.zero_grad()
        print(turn, name, spent, operations[name] / GIGA, file=sys.stderr, flush=True)
    for name, runs in seconds.items():
        walls, cpus = (statistics.median(values) for values in zip(*runs, strict=True))
        row = {"schedule": name, "passes": len(runs), "seconds": walls, "cpu_seconds": cpus}
        yield row | {"gflops": operations[name] / GIGA}


def ratios(rows: list[Row]) -> Iterator[str]:
    """Each of ours over each of the papers'."""
    known = {row["schedule"]: row for row in rows}
    for ours, theirs in product(("neyman", "exact"), ("paper-lite", CODED)):
        if ours in known and theirs in known:
            keys = ("seconds", "cpu_seconds", "gflops")
            parts = (f"{known[ours][key] / known[theirs][key]:.2f} of its {key}" for key in keys)
            yield f"- {ours} over {theirs}: {', '.join(parts)}"


def heads(wish: Namespace) -> Iterator[Row]:
    """Forward and backward, balanced and not."""
    dice = np.random.default_rng(0)
    equal = np.arange(wish.n) % wish.way
    sizes = np.sort(dice.exponential(size=wish.way) + 0.1)
    more = dice.choice(wish.way, wish.n - wish.way, p=sizes / sizes.sum())
    for kind, labels in (("balanced", equal), ("unbalanced", np.r_[np.arange(wish.way), more])):
        known = Labels(labels, wish.way)
        times: dict[str, list[float]] = {name: [] for name in HEADS}
        for name in [*HEADS, *(list(HEADS) * wish.rounds)]:
            times[name].append(head_seconds(name, known, wish))
        best = {name: statistics.median(found[1:]) for name, found in times.items()}
        row = {"classes": kind, "sizes": len(np.unique(known.counts))}
        yield (
            row
            | {f"{name}_seconds": spent for name, spent in best.items()}
            | {"times_as_fast": best["loop"] / best["ours"]}
        )


def head_seconds(name: str, labels: Labels, wish: Namespace) -> float:
    """Once, from features to their gradients."""
    generator = torch.Generator().manual_seed(0)
    support, queries = (
        torch.randn(wish.n, DIM, generator=generator).to(wish.device).requires_grad_()
        for _ in range(2)
    )
    answers = torch.arange(wish.n, device=wish.device) % wish.way
    head = HEADS[name]()
    synchronize()
    begin = time.perf_counter()
    with full_precision(support.device):
        logits = head.logits(head.fit(support, labels), queries)
        torch.autograd.backward(functional.cross_entropy(logits, answers))
    synchronize()
    return time.perf_counter() - begin


def compiling(wish: Namespace) -> Iterator[Row]:
    """Each learner, N and M of `--n`."""
    for name in wish.learners if not wish.quick else ():
        case = replace(largest(wish), learner=name)
        (learner, task), (compiled, _) = case.make(), case.make()
        compile_networks(compiled)
        first = timed(case, compiled, task)
        turns = [
            (timed(case, learner, task, turn), timed(case, compiled, task, turn))
            for turn in range(wish.rounds)
        ]
        plain, after = (statistics.median(spent) for spent in zip(*turns, strict=True))
        yield {
            "learner": name, "size": wish.size, "seconds": plain, "compiled_seconds": after,
            "to_compile_seconds": first - after,
            "of_the_time": statistics.median(b / a for a, b in turns),
        }  # fmt: skip


def timed(case: Case, learner: StagedLearner, task: Task, turn: int = 0) -> float:
    """Seconds of one gradient."""
    synchronize()
    begin = time.perf_counter()
    case.backward(learner, task, turn)
    synchronize()
    learner.zero_grad()
    return time.perf_counter() - begin


PARTS: Final = {
    "memory": memory, "cost": cost, "head": heads, "compile": compiling, "feed": feed
}  # fmt: skip


def parsed() -> Namespace:
    """The flags."""
    parser = ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--bfloat16", action="store_true", help="autocast, but the head")
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
    costs.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    costs.add_argument("--size", type=int, default=84, help="pixels; of feed, too")
    costs.add_argument("--n", type=int, default=500, help="N, and M")
    costs.add_argument("--way", type=int, default=50)
    feeds = parser.add_argument_group("feed")
    feeds.add_argument("--shards", help="with a training split; drawn if not given")
    feeds.add_argument("--steps", type=int, default=5, help="of 16 tasks")
    parser.add_argument("--quick", action="store_true", help="little of everything")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return quickened(parser.parse_args())


def quickened(wish: Namespace) -> Namespace:
    """Little of everything, if so wished."""
    if wish.quick:
        wish.backbone, wish.size, wish.memory_sizes = "mobilenetv1_075", 32, [32]
        wish.counts, wish.full, wish.memory_way = [20, 60], [20], 5
        wish.n, wish.way, wish.h, wish.rounds, wish.steps = 60, 5, 10, 1, 1
    return wish


def main() -> None:
    wish = parsed()
    torch.set_num_threads(wish.threads)
    warnings.filterwarnings("ignore", FEW)
    name = torch.cuda.get_device_name() if wish.device == "cuda" else f"CPU, {wish.threads} threads"
    print(f"{name}, torch {torch.__version__}, {wish.backbone}", flush=True)
    found: Row = {"device": name, "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as scratch:
        wish.scratch = Path(scratch)
        for part in wish.parts:
            rows = found[part] = []
            for row in PARTS[part](wish):
                rows.append(row)
                print(row, file=sys.stderr, flush=True)
                if wish.json:  # a machine that is taken away leaves what was found
                    wish.json.write_text(json.dumps(found, indent=1))
            lines = ratios(rows) if part == "cost" else ()
            print("\n".join(chain([f"\n### {part}\n", table(rows), ""], lines)), flush=True)


if __name__ == "__main__":
    main()
