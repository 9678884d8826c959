"""The command that checks shards against their manifest, index and records, and repairs them.

python -m pipeline.verify shards/md --repair
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Final

from pipeline.build.flags import add_source_flags, source_options
from pipeline.command import command_parser, run_command
from pipeline.errors import UsageError
from pipeline.index import dataset_folders, lost_folders
from pipeline.layout import DatasetLayout
from pipeline.process import usable_cores
from pipeline.sources.base import Source
from pipeline.sources.catalogue import ENTRIES, SourceOptions, find_member, open_source
from pipeline.verify.damage import CURES, CheckReport, DatasetProblem
from pipeline.verify.dataset import check_dataset
from pipeline.verify.rederive import recorded_name
from pipeline.verify.repair import needs_source, repair

__all__ = ["CheckReport", "DatasetProblem", "repair", "verify"]

PRINTED_PROBLEMS: Final = 5  # of one file; --json has them all
VERIFY_EXAMPLES: Final = """\
  python -m pipeline.verify shards/md                     every dataset below shards/md
  python -m pipeline.verify shards/md/omniglot --json     one dataset, for a script
  python -m pipeline.verify shards/md --repair            mend; sources are expected in data/<dataset>
  python -m pipeline.verify shards/mine --repair --dataset folder --source ~/pictures
"""


def verify(root: str | Path, *, workers: int = 0, quiet: bool = True) -> CheckReport:
    """Check one dataset, or every dataset in a folder. Raises SourceMissing if there is none."""
    report = CheckReport()
    for folder in dataset_folders(Path(root)):
        report += check_dataset(folder, workers=workers or usable_cores(), quiet=quiet)
    return report + CheckReport(problems=tuple(_lost_datasets(Path(root))))


def _lost_datasets(root: Path) -> list[DatasetProblem]:
    """Folders of tars without manifest and records, which no longer count as datasets."""
    what = "is missing, and so are the records in .build: nothing says what these tars are"
    file = "dataset.json"
    return [DatasetProblem(dataset=c.name, file=file, what=what, remedy="lost") for c in lost_folders(root)]


def main(argv: Sequence[str] | None = None) -> int:
    """Check, repair if asked to, print the report."""
    arguments = _parser().parse_args(argv)
    folders = dataset_folders(arguments.path)
    if arguments.dataset and len(folders) > 1:
        raise UsageError(f"--dataset says what one dataset is; {arguments.path} has {len(folders)}")
    report = before = verify(arguments.path, workers=arguments.workers, quiet=arguments.quiet)
    if arguments.repair and not report.ok:
        report = _repair_all(folders, report, arguments)
    if arguments.json:
        sys.stdout.write(json.dumps(_report_values(report, before), indent=1) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in _report_lines(report, before, arguments))
    return report.exit_code


def _repair_all(folders: Sequence[Path], report: CheckReport, arguments: Namespace) -> CheckReport:
    """Repair one dataset after the other; the report of the checks afterwards."""
    after = CheckReport()
    for folder in folders:
        name = folder.resolve().name
        problems = tuple(problem for problem in report.problems if problem.dataset == name)
        before = CheckReport(datasets=(name,), problems=problems)
        source = None
        if needs_source(folder, before):
            source = _open_source(folder, arguments, alone=len(folders) == 1)
        after += repair(folder, source, report=before, workers=arguments.workers, quiet=arguments.quiet)
    return after + CheckReport(problems=tuple(p for p in report.problems if p.remedy == "lost"))


def _open_source(folder: Path, arguments: Namespace, *, alone: bool) -> Source:
    name = recorded_name(DatasetLayout(folder))
    kind = arguments.dataset or name
    if kind not in ENTRIES:
        raise UsageError(
            f"{folder} was built under the name {name!r}, which says nothing of its source; add "
            "--dataset (folder, for instance) and --source, as in the build"
        )
    options = source_options(arguments, name)
    return open_source(kind, _source_path(kind, arguments.source, options, alone=alone), options)


def _source_path(kind: str, given: Path | None, options: SourceOptions, *, alone: bool) -> Path:
    """Where the build would look for the source, alone or as one of a family."""
    if given is not None and alone:
        return given
    family = ENTRIES[kind].family
    own = Path("data") / kind if given is None else given / kind
    if own.exists() or not family:
        return own
    return find_member(kind, given or Path("data") / family, options) or own


def _report_lines(report: CheckReport, before: CheckReport, arguments: Namespace) -> Iterator[str]:
    """The report for people: every problem with its cure, then the totals."""
    for (dataset, file), group in groupby(before.problems, lambda p: (p.dataset, p.file)):
        problems = list(group)
        for problem in problems[:PRINTED_PROBLEMS]:
            cure = "" if arguments.repair and report.ok else f"; {CURES[problem.remedy]}"
            yield f"{problem.kind}: {problem}{cure}"
        if len(problems) > PRINTED_PROBLEMS:
            more = len(problems) - PRINTED_PROBLEMS
            yield f"  and {more:,} more in {dataset}/{file}; --json lists them"
    yield (
        f"{', '.join(report.datasets)}: read {report.files:,} files, {report.bytes / 1e6:,.1f} MB, "
        f"and compared {report.members:,} tar members with the index"
    )
    damaged = sum(problem.kind != "warning" for problem in before.problems)
    if before.ok:
        yield "no damage"
    elif report.ok:
        yield f"{damaged:,} problems were found and mended; everything is intact now"
    else:
        yield f"{damaged:,} problems"


def _report_values(report: CheckReport, before: CheckReport) -> dict[str, object]:
    """The report for machines, with every problem."""
    return {
        "ok": report.ok,
        "datasets": report.datasets,
        "files": report.files,
        "bytes": report.bytes,
        "members": report.members,
        "repaired": report.ok and not before.ok,
        "problems": [
            asdict(problem) | {"kind": problem.kind, "cure": CURES[problem.remedy]}
            for problem in before.problems
        ],
    }


def _parser() -> ArgumentParser:
    flags = command_parser(
        "pipeline.verify", "Check shards byte by byte; mend what is damaged.", VERIFY_EXAMPLES
    )
    flags.add_argument("path", type=Path, help="a dataset, or a folder of datasets")
    flags.add_argument("--workers", type=int, default=0, metavar="N", help="threads (usable cores)")
    flags.add_argument("--quiet", action="store_true", help="no progress")
    flags.add_argument("--json", action="store_true", help="the report as JSON")
    mend = flags.add_argument_group(
        "repair", "Options of the build are repeated here if the source is needed and they were used."
    )
    mend.add_argument("--repair", action="store_true", help="build again what is damaged")
    mend.add_argument("--dataset", default="", metavar="NAME", help="what the source is (its name)")
    add_source_flags(mend)
    return flags


if __name__ == "__main__":
    sys.exit(run_command(main))
