"""The command that shows a shard set as a table, a page or a contact sheet; an episode likewise.

python -m pipeline.show shards/md --html md.html
python -m pipeline.show shards/md --episode 3 --png episode.png
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from pipeline.command import command_parser, run_command
from pipeline.errors import UsageError
from pipeline.layout import write_atomically
from pipeline.samplers.replay import save_plans
from pipeline.settings import add_flags, given_flags
from pipeline.shardset import ShardSet
from pipeline.show.contact_sheet import contact_sheet
from pipeline.show.episode import view_episode
from pipeline.show.episode_sheet import episode_sheet
from pipeline.show.episode_table import episode_table, episode_values
from pipeline.show.facts import DatasetFacts, dataset_facts, one_line, totals_line
from pipeline.show.page import html_page
from pipeline.show.sampler_choice import SamplerRequest, episode_plan, open_sampler
from pipeline.show.stored_images import choose_size
from pipeline.show.strips import DatasetChapter, choose_strips
from pipeline.show.table import dataset_table, dataset_values

SHEET_CLASSES: Final = 12
SHEET_SAMPLES: Final = 8
DEFAULT_H: Final = 40  # support images with gradient, as in the paper
PLAIN_WIDTH: Final = 10_000  # columns, so that no line is wrapped where there is no terminal
SET_FLAGS: Final = ("html", "classes", "samples")
EPISODE_FLAGS: Final = (
    *(f.name for f in fields(SamplerRequest) if f.name != "seed"), "h", "plan"
)  # fmt: skip
SHOW_EXAMPLES: Final = """\
  python -m pipeline.show shards/md                       a table
  python -m pipeline.show shards/md --html md.html        one page with everything to look at
  python -m pipeline.show shards/md/omniglot --png sheet.png --classes 20 --seed 3
  python -m pipeline.show shards/md --json
  python -m pipeline.show shards/md --episode 3 --png episode.png
  python -m pipeline.show shards/md --episode 3 --way 5 --shot 1 --query 15 --split test
  python -m pipeline.show shards/orbit --episode 0 --split test --protocol 2022 --png task.png
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; write the page, the sheet and the plan if asked to."""
    arguments = _parser().parse_args(argv)
    _check_flags(arguments)
    shards = ShardSet.open(arguments.path)
    if arguments.episode is None:
        _show_set(shards, arguments)
    else:
        _show_episode(shards, arguments)
    if not arguments.json:
        for path in filter(None, (arguments.html, arguments.png, arguments.plan)):
            sys.stdout.write(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)\n")
    return 0


def _check_flags(arguments: Namespace) -> None:
    """Refuse flags that would be ignored, and paths that cannot be written, before any work."""
    alone = arguments.episode is None
    wrong = [name for name in (EPISODE_FLAGS if alone else SET_FLAGS) if _is_given(arguments, name)]
    if wrong:
        reason = "is about one episode: say which with --episode" if alone else "is about a whole set"
        raise UsageError(f"--{wrong[0]} {reason}")
    if any(count is not None and count < 1 for count in (arguments.classes, arguments.samples)):
        raise UsageError("--classes and --samples start at 1")
    for path in filter(None, (arguments.html, arguments.png, arguments.plan)):
        if not path.parent.is_dir():
            raise UsageError(f"{path} cannot be written: there is no folder {path.parent}")
    if alone and "://" in arguments.path and (arguments.html or arguments.png):
        raise UsageError(
            "the pictures of a whole set are drawn from local shards only; of a remote set there are "
            "the table, and --episode N --png FILE"
        )


def _is_given(arguments: Namespace, name: str) -> bool:
    return getattr(arguments, name) is not None


def _show_set(shards: ShardSet, arguments: Namespace) -> None:
    all_facts = [dataset_facts(dataset) for dataset in shards]
    if arguments.html or arguments.png:
        _write_images(shards, all_facts, arguments)
    if arguments.json:
        rows = [dataset_values(facts) for facts in all_facts]
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    plain = not sys.stdout.isatty()
    console = _console(plain=plain)
    console.print(dataset_table(all_facts, plain=plain))
    console.print(totals_line(all_facts), style="" if plain else "bold")


def _write_images(shards: ShardSet, all_facts: Sequence[DatasetFacts], arguments: Namespace) -> None:
    classes = SHEET_CLASSES if arguments.classes is None else arguments.classes
    samples = SHEET_SAMPLES if arguments.samples is None else arguments.samples
    with closing(shards.open_store()) as store:
        chapters = [
            DatasetChapter(
                dataset=dataset,
                facts=facts,
                size=choose_size(dataset, arguments.size),
                strips=choose_strips(dataset, classes=classes, samples=samples, seed=arguments.seed),
                store=store,
            )
            for dataset, facts in zip(shards, all_facts, strict=True)
        ]
        if arguments.html:
            title = Path(arguments.path).resolve().name
            write_atomically(arguments.html, html_page(title, chapters).encode())
        if arguments.png:
            contact_sheet(chapters).save(arguments.png, "PNG", optimize=True)


def _show_episode(shards: ShardSet, arguments: Namespace) -> None:
    request = SamplerRequest(**given_flags(arguments, SamplerRequest))
    sampler = open_sampler(shards, request)
    plan = episode_plan(sampler, arguments.episode)
    h = DEFAULT_H if arguments.h is None else arguments.h
    episode = view_episode(shards[plan.dataset], plan, h=h, seed=arguments.seed)
    if arguments.plan:
        save_plans(arguments.plan, [plan], shards)
    if arguments.png:
        size = choose_size(episode.dataset, arguments.size)
        with closing(shards.open_store()) as store:
            sheet = episode_sheet(episode, store, size)
        sheet.save(arguments.png, "PNG", optimize=True)
    if arguments.json:
        sys.stdout.write(json.dumps(episode_values(episode)) + "\n")
        return
    plain = not sys.stdout.isatty()
    console = _console(plain=plain)
    console.print(Text(one_line(str(plan))), style="" if plain else "bold")
    console.print(Text(one_line(repr(sampler))))
    console.print(episode_table(episode, plain=plain))


def _console(*, plain: bool) -> Console:
    """A console with lines and colours on a terminal, with one plain line per row elsewhere."""
    if plain:
        return Console(width=PLAIN_WIDTH, no_color=True, highlight=False, markup=False, emoji=False)
    return Console(markup=False, emoji=False)  # names may hold brackets and colons


def _parser() -> ArgumentParser:
    flags = command_parser(
        "pipeline.show", "Look at shards: numbers, classes, pictures, episodes.", SHOW_EXAMPLES
    )
    flags.add_argument("path", help="a dataset, or a folder of datasets, or the URL of one")
    flags.add_argument("--png", type=Path, metavar="FILE", help="write one contact sheet")
    flags.add_argument("--html", type=Path, metavar="FILE", help="write one self-contained page")
    flags.add_argument(
        "--size", type=int, default=0, metavar="PX", help="which stored size to show (the largest)"
    )
    flags.add_argument("--classes", type=int, metavar="N", help=f"random classes ({SHEET_CLASSES})")
    flags.add_argument("--samples", type=int, metavar="K", help=f"pictures of each ({SHEET_SAMPLES})")
    flags.add_argument(
        "--seed", type=int, default=0, metavar="K", help="of the choice, or of the sampler (0)"
    )
    flags.add_argument("--json", action="store_true", help="for machines, instead of tables")
    _add_episode_flags(flags)
    return flags


def _add_episode_flags(flags: ArgumentParser) -> None:
    group = flags.add_argument_group("an episode")
    group.add_argument("--episode", type=int, metavar="N", help="show this one, not the set")
    add_flags(group, SamplerRequest)
    group.add_argument("--h", type=int, metavar="N", help=f"support pictures in H ({DEFAULT_H})")
    group.add_argument("--plan", type=Path, metavar="FILE", help="save the plan, for --replay")


if __name__ == "__main__":
    sys.exit(run_command(main))
