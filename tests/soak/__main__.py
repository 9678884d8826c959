"""Build, read, train, evaluate and serve, killed and resumed at random: `python -m tests.soak [--minutes 30]`.

Every result must be that of undisturbed work: shards and parameters to the bit, episodes, figures, answers. In the
end no process, shared memory or temporary file may be left, and two processes that live through all of it, a
page and one that reads, trains and evaluates on and on, may hold no more than after their first rounds.
"""

from __future__ import annotations

import sys
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from tests.soak.disturbed import SoakFailure
from tests.soak.session import SoakSession


def main(argv: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(
        prog="python -m tests.soak", description=__doc__, formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args(argv)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        session = SoakSession(Path(folder), flags.seed)
        try:
            session.soak(60 * flags.minutes)
            session.check_nothing_is_left()
        except SoakFailure as failure:
            print(f"FAILED after {time.monotonic() - begin:,.0f} s: {failure}")
            return 1
    print(
        f"{(time.monotonic() - begin) / 60:.1f} minutes; {session.describe_rounds()}; all equal to undisturbed work; "
        f"last process gone after {session.tally.longest_orphan:.2f} s at most; {'; '.join(session.growth.values())}; "
        "nothing left"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
