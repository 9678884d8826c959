"""The studies of the LITE paper, one command each: at its scale, or in a small form on two CPU cores.

    python -m benchmarks.paper table2         accuracy by |H|, from one support image with gradient to all
    python -m benchmarks.paper small-tasks    LITE on large tasks against all gradients on small ones
    python -m benchmarks.paper subsample      LITE against H alone as the support set
    python -m benchmarks.paper figure4        bias and error of the gradient by |H|

The small form trains on Omniglot and Caltech-101 together, from ImageNet weights (REAL_DATA), and asks all runs
about the same tasks of held-out classes. `--scale paper` trains with the presets of train.py on Meta-Dataset
and evaluates on it and on VTAB: it needs a GPU, and says which data are missing. `--dry-run` only prints the
commands. What is finished is not made again: the same command continues an interrupted study.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from benchmarks.common import describe_run
from benchmarks.paper_runs import SmallForm
from benchmarks.paper_scale import PaperScale
from benchmarks.paper_small import SmallStudy
from pipeline.command import run_command
from pipeline.errors import UsageError
from pipeline.settings import add_flags, flag_name, given_flags, typed

STUDIES: Final = ("table2", "small-tasks", "subsample", "figure4")


def main(argv: Sequence[str] | None = None) -> int:
    """Make what is missing of a study, then print its table, which is also written beside the runs."""
    flags = ArgumentParser(
        prog="python -m benchmarks.paper", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    flags.add_argument("study", choices=STUDIES)
    flags.add_argument("--scale", choices=("small", "paper"), default="small", help="(small)")
    flags.add_argument("--out", type=Path, default=Path("runs/paper"), help="of all results (runs/paper)")
    flags.add_argument("--dry-run", action="store_true", help="print the commands, and what is missing")
    paper = flags.add_argument_group("with --scale paper")
    paper.add_argument("--md", default="shards/md", metavar="SET", help="Meta-Dataset (shards/md)")
    paper.add_argument("--vtab", default="shards/vtab", metavar="SET", help="(shards/vtab)")
    paper.add_argument("--weights-84", type=Path, default=Path("data/efficientnet-b0_84.pt"), metavar="FILE",
                       help="EfficientNet-B0 trained at 84 pixels (data/efficientnet-b0_84.pt)")  # fmt: skip
    add_flags(flags.add_argument_group("with --scale small"), SmallForm)
    arguments = flags.parse_args(argv)
    given = given_flags(arguments, SmallForm)
    if arguments.scale == "paper":
        if given:
            names = ", ".join(map(flag_name, given))
            raise UsageError(
                f"{names}: of --scale small; at the paper's scale the presets say what is trained"
            )
        scale = PaperScale(arguments.md, arguments.vtab, arguments.weights_84, arguments.out)
        scale.run(arguments.study, dry=arguments.dry_run)
        return 0
    small = SmallStudy(typed(given, SmallForm, "the command line", UsageError), arguments.out)
    if arguments.dry_run:
        print("\n".join(small.commands(arguments.study)))
        return 0
    text = small.figure4() if arguments.study == "figure4" else small.table(arguments.study)
    text = f"{describe_run('benchmarks.paper', f'torch {torch.__version__}')}\n\n{text}\n"
    (arguments.out / f"{arguments.study}.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
