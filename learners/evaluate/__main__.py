"""Evaluate a learner under a benchmark's protocol: `python -m learners.evaluate --help`.

Each finished task is a line on disk: the same command goes on where it stopped, and torchrun shares the
tasks among GPUs. The figures do not depend on either.
"""

from __future__ import annotations

import logging
import sys
from argparse import ArgumentParser, BooleanOptionalAction, Namespace, _ArgumentGroup
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, get_args

import torch

from learners.evaluate.protocols import PROTOCOLS, Mode, Options
from learners.evaluate.records import Evaluation
from learners.evaluate.run import How, Run, digest
from learners.evaluate.subject import Subject, subject
from learners.evaluate.summary import averages, cost, scores, task_macs, write_challenges
from learners.evaluate.terminal import show
from learners.evaluate.work import Work
from learners.learner import CHUNK, Passage, Precision
from learners.methods.catalogue import Name
from learners.processes import team
from pipeline.command import parser, run_command
from pipeline.decoders.choose import DecoderName
from pipeline.errors import UsageError
from pipeline.records import SPLITS
from pipeline.samplers.orbit.rules import ProtocolName
from pipeline.samplers.vtab import COLUMNS
from pipeline.shardset import ShardSet

log = logging.getLogger(__name__)

EXAMPLES: Final = """\
  python -m learners.evaluate --shards shards/md --checkpoint runs/md --protocol md
  python -m learners.evaluate --shards shards/vtab --checkpoint runs/md --protocol vtab --splits lite
  python -m learners.evaluate --shards shards/orbit --checkpoint runs/orbit --protocol orbit --mode clu-ve
  python -m learners.evaluate --shards shards/omniglot --checkpoint runs/omniglot --protocol fixed \\
      --way 20 --within                                          characters of one alphabet
  python -m learners.evaluate --shards shards/caltech --learner protonets --backbone mobilenetv1_075 \\
      --weights mobilenet.safetensors --image-size 84 --protocol fixed --way 20 --shot 5
  torchrun --nproc-per-node 4 -m learners.evaluate --shards shards/md --checkpoint runs/md --protocol md
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Answer the tasks, write `evaluation.json`, print its table."""
    arguments = _parser().parse_args(argv)
    protocol = _protocol(arguments)
    shards = ShardSet.open(arguments.shards)
    work = protocol.work(shards)
    who = subject(arguments)
    how = _how(arguments, who)
    _check_size(shards, work, how.image_size)
    with team(arguments.device) as members:
        net = who.net.to(members.device)
        notes = (*who.notes(work.parts, shards, how.image_size), *work.notes)
        if members.leads:
            for note in notes:
                log.warning("%s", note)
        run = Run(net=net, work=work, shards=shards, how=how, team=members)
        out = arguments.out or Path("results") / f"{who.name}-{protocol.label}"
        tasks = run.answers(out, _settings(run, protocol, who))
        if not members.leads:
            return 0
    figures, macs = scores(work, tasks), task_macs(net, how.image_size, work, tasks)
    found = Evaluation(
        name=who.name, protocol=protocol.name,
        options={**protocol.described(), "image_size": how.image_size},
        learner=who.described(), shards=shards.root, scores=figures,
        averages=averages(work, figures), cost=cost(net, macs, tasks), notes=notes,
    )  # fmt: skip
    paths = [found.save(out), *write_challenges(out, macs, work, tasks)]
    if arguments.json:
        sys.stdout.write(paths[0].read_text(encoding="utf-8"))
    else:
        show(found, paths)
    return 0


def _protocol(arguments: Namespace) -> Options:
    """With the options that were given, all of which must be its own."""
    kind = PROTOCOLS[arguments.protocol]
    names = dict.fromkeys(f.name for other in PROTOCOLS.values() for f in fields(other))
    given = {n: getattr(arguments, n) for n in names if getattr(arguments, n) is not None}
    for name in given.keys() - {f.name for f in fields(kind)}:
        owners = [o.name for o in PROTOCOLS.values() if name in {f.name for f in fields(o)}]
        raise UsageError(
            f"--{name.replace('_', '-')} is of --protocol {' and '.join(owners)}, not of {kind.name}"
        )
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }
    return kind(**values)


def _how(arguments: Namespace, who: Subject) -> How:
    precision = None
    if arguments.precision != "float32":
        precision = getattr(torch, arguments.precision)
    return How(
        image_size=arguments.image_size or who.about.image_size,
        passage=Passage(chunk=arguments.chunk, precision=precision),
        decoder=arguments.decoder, threads=arguments.threads, share=arguments.share,
    )  # fmt: skip


def _check_size(shards: ShardSet, work: Work, size: int) -> None:
    """Every dataset must hold it: better said now than when its turn comes."""
    for name in dict.fromkeys(part.dataset for part in work.parts):
        sizes = shards[name].manifest.recipe.sizes
        if size not in sizes:
            raise UsageError(
                f"images of {size} pixels are needed, and {name} holds {', '.join(map(str, sizes))}; "
                f"choose another --image-size, or build it with --sizes {size}"
            )


def _settings(run: Run, protocol: Options, who: Subject) -> dict[str, Any]:
    """What must be the same when an evaluation goes on; it may have more tasks than it began with."""
    how = run.how
    asked = {name: value for name, value in protocol.described().items() if name != "tasks"}
    builds = {
        name: {
            "plan": run.shards[name].manifest.plan_hash,
            "samples": run.shards[name].manifest.samples,
        }
        for name in dict.fromkeys(part.dataset for part in run.work.parts)
    }
    return {
        "protocol": protocol.name, **asked, "learner": who.about.learner,
        "backbone": who.about.backbone, "weights": digest(run.net), "image_size": how.image_size,
        "chunk": how.passage.chunk, "precision": str(how.passage.precision or "float32"), "decoder": how.decoder,
        "share": how.share, "shards": builds,
    }  # fmt: skip


def _parser() -> ArgumentParser:
    flags = parser("learners.evaluate", "Evaluate a learner as the benchmarks do.", EXAMPLES)
    flags.add_argument("--shards", required=True, nargs="+", metavar="SET",
                       help="shard set: a folder or a URL; or several")  # fmt: skip
    flags.add_argument("--protocol", required=True, choices=list(PROTOCOLS), help="what is asked")
    _add_learner(flags.add_argument_group("learner"))
    _add_options(flags.add_argument_group("options of the protocol"))
    _add_run(flags.add_argument_group("run"))
    return flags


def _add_learner(group: _ArgumentGroup) -> None:
    add = group.add_argument
    add("--checkpoint", metavar="RUN", help="a run of train.py, or one of its checkpoints")
    add("--learner", choices=get_args(Name), help="without a run: an untrained one, of a backbone")
    add("--backbone", metavar="NAME", help="as train.py's")
    add(
        "--weights",
        default="",
        metavar="FILE",
        help="the backbone's, as train.py's; random by default",
    )
    add("--image-size", type=int, metavar="PX", help="(the run's; 224 without one)")
    add("--name", default="", help="of the row in tables (the run's folder)")


def _add_options(group: _ArgumentGroup) -> None:
    """All without a default, so that what was given can be told."""
    add = group.add_argument
    add("--datasets", nargs="+", metavar="NAME", help="(those that the protocol has)")
    add("--seed", type=int, help="of the tasks (0)")
    add(
        "--tasks",
        type=int,
        metavar="N",
        help="md, fixed: of each dataset (600); more may be added later",
    )
    add("--split", choices=SPLITS, help="md, orbit, fixed: of the classes; '' is all (test)")
    add("--splits", choices=list(COLUMNS), help="vtab: the benchmark's or LITE's (vtab)")
    add(
        "--query-limit",
        type=int,
        metavar="N",
        help="vtab: query images of a task, for a quick look",
    )
    add(
        "--orbit",
        choices=get_args(ProtocolName),
        help="orbit: the paper's, or its code's since (2021)",
    )
    add("--mode", nargs="+", choices=get_args(Mode), help="orbit: (2021: both; 2022: clu-ve)")
    add("--tasks-per-user", type=int, metavar="N", help="orbit: (2021: 5; 2022: 50)")
    add("--way", type=int, help="fixed: classes of a task (5)")
    add("--shot", type=int, help="fixed: support images of a class (1)")
    add("--query", type=int, help="fixed: query images of a class (10)")
    add("--within", action="store_const", const=True,
        help="fixed: classes of one superclass: alphabet, user")  # fmt: skip
    add(
        "--min-examples-in-class",
        type=int,
        metavar="N",
        help="fixed: leave smaller classes out (0)",
    )


def _add_run(group: _ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="where answers and figures go (results/NAME-PROTOCOL)",
    )
    add("--json", action="store_true", help="print the figures as JSON")
    add("--device", default="auto", help="cpu, cuda, or auto (auto)")
    add("--chunk", type=int, default=CHUNK, help=f"images in memory at a time ({CHUNK})")
    add("--precision", default="float32", choices=get_args(Precision), help="(float32)")
    add("--decoder", default="auto", choices=get_args(DecoderName), help="of JPEG (auto)")
    add("--threads", type=int, metavar="N", help="that decode (one for each core)")
    add("--share", action=BooleanOptionalAction, default=True,
        help="pass an image once for all tasks where that is exact")  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_command(main))
