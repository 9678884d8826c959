"""The looking command: a shard set as a table, one page or a contact sheet; an episode likewise.

python -m pipeline.show shards/md --html md.html
python -m pipeline.show shards/md --episode 3 --png episode.png
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from pipeline.command import parser, run_command
from pipeline.errors import UsageError
from pipeline.layout import write_whole
from pipeline.records import SPLITS
from pipeline.samplers.replay import save_plans
from pipeline.shardset import ShardSet
from pipeline.show.choice import SAMPLERS, Request, open_sampler, plan_of
from pipeline.show.episode import view
from pipeline.show.episode_sheet import episode_sheet
from pipeline.show.episode_table import episode_table, episode_values
from pipeline.show.facts import Facts, facts, totals
from pipeline.show.page import Chapter, page
from pipeline.show.pictures import check_size
from pipeline.show.sheet import contact_sheet
from pipeline.show.strips import choose
from pipeline.show.table import table, values

CLASSES: Final = 12
SAMPLES: Final = 8
H: Final = 40  # support pictures with gradient, as in the paper
WIDE: Final = 10_000  # columns; a line is a line where no terminal wraps it
OF_SETS: Final = ("html", "classes", "samples")
OF_EPISODES: Final = (
    "sampler", "split", "protocol", "way", "shot", "query", "h", "plan", "replay",
)  # fmt: skip
EXAMPLES: Final = """\
  python -m pipeline.show shards/md                       a table
  python -m pipeline.show shards/md --html md.html        one page with everything to look at
  python -m pipeline.show shards/md/omniglot --png sheet.png --classes 20 --seed 3
  python -m pipeline.show shards/md --json
  python -m pipeline.show shards/md --episode 3 --png episode.png
  python -m pipeline.show shards/md --episode 3 --way 5 --shot 1 --query 15 --split test
  python -m pipeline.show shards/orbit --episode 0 --split test --protocol 2022 --png task.png
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; write what else was asked for."""
    arguments = _parser().parse_args(argv)
    _check(arguments)
    shards = ShardSet.open(arguments.path)
    if arguments.episode is None:
        _show_set(shards, arguments)
    else:
        _show_episode(shards, arguments)
    if not arguments.json:
        for path in filter(None, (arguments.html, arguments.png, arguments.plan)):
            sys.stdout.write(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)\n")
    return 0


def _check(arguments: Namespace) -> None:
    """Nothing that was asked for is left aside in silence, and what can fail early does."""
    alone = arguments.episode is None
    wrong = [name for name in (OF_EPISODES if alone else OF_SETS) if _given(arguments, name)]
    if wrong:
        reason = (
            "is about one episode: say which with --episode" if alone else "is about a whole set"
        )
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


def _given(arguments: Namespace, name: str) -> bool:
    return getattr(arguments, name) is not None


def _show_set(shards: ShardSet, arguments: Namespace) -> None:
    all_facts = [facts(dataset) for dataset in shards]
    if arguments.html or arguments.png:
        _draw(shards, all_facts, arguments)
    if arguments.json:
        rows = [values(entry) for entry in all_facts]
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    plain = not sys.stdout.isatty()
    console = _console(plain=plain)
    console.print(table(all_facts, plain=plain))
    console.print(totals(all_facts), style="" if plain else "bold")


def _draw(shards: ShardSet, all_facts: Sequence[Facts], arguments: Namespace) -> None:
    classes = CLASSES if arguments.classes is None else arguments.classes
    samples = SAMPLES if arguments.samples is None else arguments.samples
    chapters = [
        Chapter(
            dataset=dataset,
            facts=known,
            size=check_size(dataset, arguments.size),
            strips=choose(dataset, classes=classes, samples=samples, seed=arguments.seed),
        )
        for dataset, known in zip(shards, all_facts, strict=True)
    ]
    if arguments.html:
        title = Path(arguments.path).resolve().name
        write_whole(arguments.html, page(title, chapters).encode())
    if arguments.png:
        contact_sheet(chapters).save(arguments.png, "PNG", optimize=True)


def _show_episode(shards: ShardSet, arguments: Namespace) -> None:
    given = {name: getattr(arguments, name) for name in Request.__dataclass_fields__}
    sampler = open_sampler(shards, Request(**given))
    plan = plan_of(sampler, arguments.episode)
    h = H if arguments.h is None else arguments.h
    episode = view(shards[plan.dataset], plan, h=h, seed=arguments.seed)
    if arguments.plan:
        save_plans(arguments.plan, [plan], shards)
    if arguments.png:
        size = check_size(episode.dataset, arguments.size)
        with closing(shards.open_store()) as store:
            sheet = episode_sheet(episode, store, size)
        sheet.save(arguments.png, "PNG", optimize=True)
    if arguments.json:
        sys.stdout.write(json.dumps(episode_values(episode)) + "\n")
        return
    plain = not sys.stdout.isatty()
    console = _console(plain=plain)
    console.print(Text(str(plan)), style="" if plain else "bold")
    console.print(Text(repr(sampler)))
    console.print(episode_table(episode, plain=plain))


def _console(*, plain: bool) -> Console:
    """With lines and colours on a terminal, one plain line per row elsewhere."""
    return Console(width=WIDE, no_color=True, highlight=False) if plain else Console()


def _parser() -> ArgumentParser:
    flags = parser(
        "pipeline.show", "Look at shards: numbers, classes, pictures, episodes.", EXAMPLES
    )
    flags.add_argument("path", help="a dataset, or a folder of datasets, or the URL of one")
    flags.add_argument("--png", type=Path, metavar="FILE", help="write one contact sheet")
    flags.add_argument("--html", type=Path, metavar="FILE", help="write one self-contained page")
    flags.add_argument(
        "--size", type=int, default=0, metavar="PX", help="which stored size to show (the largest)"
    )
    flags.add_argument("--classes", type=int, metavar="N", help=f"random classes ({CLASSES})")
    flags.add_argument("--samples", type=int, metavar="K", help=f"pictures of each ({SAMPLES})")
    flags.add_argument(
        "--seed", type=int, default=0, metavar="K", help="of the choice, or of the sampler (0)"
    )
    flags.add_argument("--json", action="store_true", help="for machines, instead of tables")
    _add_episode_flags(flags)
    return flags


def _add_episode_flags(flags: ArgumentParser) -> None:
    group = flags.add_argument_group("an episode")
    group.add_argument("--episode", type=int, metavar="N", help="show this one, not the set")
    group.add_argument(
        "--sampler",
        choices=SAMPLERS,
        help="whose episodes (the one that suits the set)",
    )
    group.add_argument("--split", choices=SPLITS[:-1], help="train, where there is one")
    group.add_argument("--protocol", help="vtab, lite (VTAB); 2021, 2022 (ORBIT)")
    group.add_argument("--way", type=int, metavar="N", help="classes (the sampler's rule)")
    group.add_argument("--shot", type=int, metavar="N", help="support pictures of each class")
    group.add_argument("--query", type=int, metavar="N", help="query pictures of each class")
    group.add_argument("--h", type=int, metavar="N", help=f"support pictures in H ({H})")
    group.add_argument("--plan", type=Path, metavar="FILE", help="save the plan, for --replay")
    group.add_argument(
        "--replay", type=Path, metavar="FILE", help="episode N of these saved plans, from 0"
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
