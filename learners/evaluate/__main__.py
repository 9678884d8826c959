"""Evaluate a learner under a benchmark's protocol: `python -m learners.evaluate --help`.

Each finished task is a line on disk: the same command goes on where it stopped, and torchrun shares the
tasks among GPUs. The figures do not depend on either.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from learners.evaluate.calibration import calibration_scores
from learners.evaluate.evaluated_learner import EvaluatedLearner, load_evaluated
from learners.evaluate.flags import EvaluationFlags, parse_flags
from learners.evaluate.ledger import recorded_chunks
from learners.evaluate.protocols import ProtocolOptions
from learners.evaluate.records import EvaluationResult
from learners.evaluate.run import EvaluationRun, EvaluationSettings, hash_weights
from learners.evaluate.summary import (
    adaptation_cost,
    average_scores,
    score_tasks,
    task_macs,
    write_challenge_files,
)
from learners.evaluate.task_set import TaskSet
from learners.evaluate.terminal import print_evaluation
from learners.learner import MetaLearner
from learners.networks.arithmetic import Precision, autocast_dtype, known_precision, network_arithmetic
from learners.networks.chunk_sizes import ChunkSizes
from learners.processes import ProcessGroup, join_processes, out_of_memory_in_words
from learners.task import ChunkedPass
from pipeline.command import run_command
from pipeline.decoders.choose import resolved_decoder
from pipeline.errors import UsageError
from pipeline.shardset import ShardSet

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Answer the tasks, write `evaluation.json`, print its table."""
    flags, protocol = parse_flags(argv)
    shards = ShardSet.open(flags.shards)
    task_set = protocol.task_set(shards)
    learner = load_evaluated(flags, protocol.seed)
    settings = _evaluation_settings(flags, learner)
    _check_size(shards, task_set, settings.image_size)
    validation_set, reason = _validation_set(protocol, shards, settings.image_size, flags.calibration_tasks)
    with (
        join_processes(flags.device) as processes,
        network_arithmetic(flags.precision, processes.device, deterministic=flags.deterministic),
        out_of_memory_in_words(),
    ):
        net = learner.net.to(processes.device)
        out = Path(flags.out or f"results/{learner.name}-{protocol.label}")
        sizes = _chunk_sizes(flags, net, settings, processes, out)
        settings = replace(settings, passage=settings.passage.resized(sizes))
        notes = (*learner.notes(task_set, shards, settings), *task_set.notes, *reason)
        if processes.leads:
            for note in notes:
                log.warning("%s", note)
        run = EvaluationRun(
            learner=net,
            task_set=task_set,
            shards=shards,
            settings=settings,
            processes=processes,
            validation_set=validation_set,
        )
        tasks = run.answers(out, _resume_settings(run, protocol, learner, flags.precision))
        if not processes.leads:
            return 0
    notes = (*notes, *(f"out of memory: from some task on in {halved}" for halved in run.halvings))
    scores, macs = (score_tasks(task_set, tasks), task_macs(net, settings.image_size, task_set, tasks))
    result = EvaluationResult(
        name=learner.name, protocol=protocol.name,
        options={**protocol.described(), "image_size": settings.image_size},
        learner=learner.described(), shards=shards.root, scores=scores,
        averages=average_scores(task_set, scores), cost=adaptation_cost(net, macs, tasks),
        calibration=calibration_scores(tasks), notes=notes,
    )  # fmt: skip
    paths = [result.save(out), *write_challenge_files(out, macs, task_set, tasks)]
    if flags.json:
        sys.stdout.write(paths[0].read_text(encoding="utf-8"))
    else:
        print_evaluation(result, paths)
    return 0


def _evaluation_settings(flags: EvaluationFlags, learner: EvaluatedLearner) -> EvaluationSettings:
    return EvaluationSettings(
        image_size=flags.image_size or learner.info.image_size,
        passage=ChunkedPass(precision=autocast_dtype(flags.precision)),
        decoder=flags.decoder, threads=flags.threads, share=flags.share,
    )  # fmt: skip


def _chunk_sizes(
    flags: EvaluationFlags,
    net: MetaLearner,
    settings: EvaluationSettings,
    processes: ProcessGroup,
    folder: Path,
) -> ChunkSizes:
    """The chunks that the flags name; with `auto` those that the evaluation began with, or the largest that fit."""
    if flags.chunk != "auto":
        return ChunkSizes(flags.chunk, flags.chunk)
    sizes = recorded_chunks(folder) or net.chunk_sizes(
        settings.image_size, precision=settings.passage.precision, memory=flags.chunk_memory * 1e9 or None
    )
    return ChunkSizes(*processes.least(sizes))


def _validation_set(
    protocol: ProtocolOptions, shards: ShardSet, size: int, tasks: int
) -> tuple[TaskSet | None, tuple[str, ...]]:
    """The tasks that a temperature is fitted to; None without any, and why if that is not plain."""
    if not tasks:
        return None, ()
    try:
        found = protocol.validation_set(shards, tasks)
        if found is not None:
            _check_size(shards, found, size)
    except UsageError as error:
        return None, (f"no temperature is fitted to validation classes: {error}",)
    return found, ()


def _check_size(shards: ShardSet, task_set: TaskSet, size: int) -> None:
    """Check that every dataset holds images of the size, before any of them is evaluated."""
    for name in dict.fromkeys(own.dataset for own in task_set.datasets):
        sizes = shards[name].manifest.recipe.sizes
        if size not in sizes:
            raise UsageError(
                f"images of {size} pixels are needed, and {name} holds {', '.join(map(str, sizes))}; "
                f"choose another --image-size, or build it with --sizes {size}"
            )


def _resume_settings(
    run: EvaluationRun, protocol: ProtocolOptions, learner: EvaluatedLearner, precision: Precision
) -> dict[str, Any]:
    """What must be the same when an evaluation goes on; the number of tasks may change.

    Options of the learner are there where they differ from the defaults; older folders have none.
    """
    computed = autocast_dtype(precision) or known_precision(precision, run.processes.device)
    settings, sizes = run.settings, run.settings.passage.sizes
    options = {name: value for name, value in protocol.described().items() if name != "tasks"}
    manifests = {own.dataset: run.shards[own.dataset].manifest for own in run.task_set.datasets}
    return {
        "protocol": protocol.name, **options, "learner": learner.info.learner,
        "backbone": learner.info.backbone, "weights": hash_weights(run.learner),
        **learner.info.options.differing(),
        "image_size": settings.image_size, "chunk": sizes.graph,
        **({"forward_chunk": sizes.forward} if sizes.forward != sizes.graph else {}),
        "precision": str(computed), "decoder": resolved_decoder(settings.decoder),
        "share": settings.share,
        **({"calibration_tasks": run.validation_set.datasets[0].tasks} if run.validation_set else {}),
        "shards": {name: {"plan": manifest.plan_hash, "samples": manifest.samples}
                   for name, manifest in manifests.items()},
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_command(main))
