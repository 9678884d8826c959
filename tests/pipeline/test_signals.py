"""Who asks to stop is heard, but not in the middle."""

from __future__ import annotations

import signal
import threading

import pytest

from pipeline.signals import SIGNALS, stopping


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_does_nothing_else(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stopping() as noted:
        signal.raise_signal(number)
        assert noted == [number]
    assert signal.getsignal(number) is before


def test_what_comes_after_is_handled_as_before() -> None:
    with stopping() as noted:
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert noted == []


def test_outside_the_main_thread_nothing_is_held_back() -> None:
    handlers = []

    def look() -> None:
        with stopping():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]
