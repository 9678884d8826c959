"""Every fuzz target for a moment: its seeds, the inputs that once failed, and a few hundred changed ones."""

from __future__ import annotations

import time

import pytest

from tests.fuzz.engines import FuzzSession, seeded
from tests.fuzz.target import load_target, target_names
from tests.fuzz.trial import trial_limits

SHORT_INPUTS = 300
SHORT_SECONDS = 5.0  # of processor time; slow parsers try fewer inputs


@pytest.mark.parametrize("name", target_names())
def test_what_once_failed_stays_mended(name: str) -> None:
    target = load_target(name)
    with trial_limits(target) as limits:
        for path in target.finds():
            limits.run(path.read_bytes())


@pytest.mark.parametrize("name", target_names())
def test_a_short_run_finds_nothing(name: str) -> None:
    target = load_target(name)
    assert target.seeds
    for data in target.seeds:
        target.check(data)
    with trial_limits(target) as limits:
        session = ShortSession(target, limits)
        end = time.process_time() + SHORT_SECONDS
        seeded(target, session, 0, lambda: session.tried < SHORT_INPUTS and time.process_time() < end)


class ShortSession(FuzzSession):
    """A session that fails at its first find."""

    def passes(self, data: bytes) -> bool:
        self.tried += 1
        self._limits.run(data)
        return True
