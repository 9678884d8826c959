"""Signals to stop are collected for a safe moment, and usable cores are counted."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from pipeline.process import STOP_SIGNALS, _quota_v1, _quota_v2, note_stop_signals, usable_cores


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_is_noted_and_does_nothing_else(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with note_stop_signals() as noted:
        signal.raise_signal(number)
        assert noted == [number]
    assert signal.getsignal(number) is before


def test_a_later_signal_is_handled_as_before() -> None:
    with note_stop_signals() as noted:
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert noted == []


def test_outside_the_main_thread_nothing_is_held_back() -> None:
    handlers = []

    def look() -> None:
        with note_stop_signals():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]


def test_usable_cores_respect_affinity_and_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert usable_cores() == 1


def test_container_quotas_are_read(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert _quota_v2(tmp_path / "cpu.max") == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert _quota_v2(tmp_path / "cpu.max") is None
    assert _quota_v2(tmp_path / "absent") is None
    (tmp_path / "cpu.cfs_quota_us").write_text("400000")
    (tmp_path / "cpu.cfs_period_us").write_text("100000")
    assert _quota_v1(tmp_path) == 4
    (tmp_path / "cpu.cfs_quota_us").write_text("-1")
    assert _quota_v1(tmp_path) is None
