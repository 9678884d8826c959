"""The fuzz harness finds what it should: errors, endless loops, memory without bound; each kind once."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fuzz import target as target_module
from tests.fuzz.__main__ import main
from tests.fuzz.engines import BOX_BYTES, FlightRecorder, FuzzSession, mutated, seeded
from tests.fuzz.mutations import mutate_bytes
from tests.fuzz.target import FuzzTarget
from tests.fuzz.trial import trial_limits


def toy(check: Callable[[bytes], None]) -> FuzzTarget:
    return FuzzTarget(
        name="toy", title="Toy.", seeds=[b"hello world"], check=check, mutate=mutate_bytes, structured=False,
        limit_mb=64, seconds=0.2,
    )  # fmt: skip


def refuse_odd_lengths(data: bytes) -> None:
    assert len(data) % 2 == 0


def loop(data: bytes) -> None:
    while data:
        pass


def hoard(data: bytes) -> None:
    bytearray(1 << 30)


def hoard_in_silence(data: bytes) -> None:
    b"x" * (200 << 20)  # freed at once


def seeded_inputs(seed: int) -> list[bytes]:
    """Two hundred inputs of the seeded engine."""
    tried: list[bytes] = []
    target = toy(tried.append)
    with trial_limits(target) as limits:
        session = FuzzSession(target, limits)
        seeded(target, session, seed, lambda: session.tried < 200)
    return tried


@pytest.mark.parametrize(
    ("check", "kind"),
    [
        (refuse_odd_lengths, "AssertionError"),
        (loop, "InputTooSlow"),
        (hoard, "MemoryError"),
        (hoard_in_silence, "MemoryGrew"),
    ],
)
def test_each_kind_of_find_is_written_down_once(
    check: Callable[[bytes], None], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_module, "FOLDER", tmp_path)
    target = toy(check)
    with trial_limits(target) as limits:
        session = FuzzSession(target, limits)
        for data in (b"odd", b"odder", b"oddest!"):
            session.try_input(data)
    assert session.tried == 3
    assert len(session.signatures) == 1
    assert next(iter(session.signatures)).startswith(f"{kind} in ")
    assert [path.read_bytes() for path in target.finds()] == [b"odd"]


def test_the_same_seed_tries_the_same_inputs() -> None:
    first, second = seeded_inputs(7), seeded_inputs(7)
    assert first == second
    assert len(set(first)) > 100
    assert first != seeded_inputs(8)


def test_the_input_under_test_survives_its_process(tmp_path: Path) -> None:
    path = tmp_path / "recorder"
    path.write_bytes(bytes(BOX_BYTES))
    FlightRecorder(path).write(3, 1, b"fatal")
    assert FlightRecorder(path).read() == (3, 1, b"fatal")


def test_mutations_take_empty_inputs_and_give_bounded_ones() -> None:
    generator = random.Random(0)
    assert all(len(mutate_bytes(b"", generator)) < 1000 for _ in range(500))


def test_an_unknown_target_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["nonsense"])
    assert "there is no target nonsense" in capsys.readouterr().err


def test_changes_that_fail_become_changes_of_bytes() -> None:
    def fail(_data: bytes, _generator: random.Random) -> bytes:
        raise OverflowError

    target = replace(toy(refuse_odd_lengths), mutate=fail)
    assert mutated(target, b"hello", random.Random(0)) == mutate_bytes(b"hello", random.Random(0))
