from __future__ import annotations

from importlib.util import find_spec

import pytest

from pipeline.decoders.choose import open_decoder, resolved_decoder
from pipeline.decoders.threads import ThreadedDecoder
from pipeline.errors import UsageError
from pipeline.records import Encoding
from pipeline.store.local import LocalStore
from tests.pipeline.decoders.test_threads import run_script

WITHOUT_DALI = """
import sys
sys.modules["nvidia"] = None
from pipeline.decoders.choose import open_decoder, resolved_decoder
from pipeline.errors import UsageError
from pipeline.store.local import LocalStore
open_decoder("auto", LocalStore(), size=48, threads=1, device="cuda").close()
try:
    open_decoder("dali", LocalStore(), size=48, threads=1, device="cpu")
except UsageError as error:
    print(error)
"""


def test_the_cpu_gets_turbo_with_a_thread_for_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    decoder = open_decoder("auto", LocalStore(), size=48, threads=None, device="cpu")
    assert isinstance(decoder, ThreadedDecoder)
    assert len(decoder.workers) == 3
    assert not decoder.wants_device(Encoding.parse("jpeg:95"))
    decoder.close()


def test_a_gpu_leaves_one_core_to_its_feeder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    decoder = open_decoder("turbo", LocalStore(), size=48, threads=None, device="cuda:0")
    assert isinstance(decoder, ThreadedDecoder)
    assert len(decoder.workers) == 2
    decoder.close()


def test_the_ranks_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    for device, threads in (("cpu", 4), ("cuda:0", 3)):
        decoder = open_decoder("turbo", LocalStore(), size=48, threads=None, device=device)
        assert isinstance(decoder, ThreadedDecoder)
        assert len(decoder.workers) == threads
        decoder.close()


def test_auto_is_turbo_on_a_gpu_too_since_pixels_must_be_comparable() -> None:
    decoder = open_decoder("auto", LocalStore(), size=48, threads=1, device="cuda")
    assert isinstance(decoder, ThreadedDecoder)
    decoder.close()
    assert (resolved_decoder("auto"), resolved_decoder("dali")) == ("turbo", "dali")


def test_fast_decoding_asks_for_turbo() -> None:
    decoder = open_decoder("auto", LocalStore(), size=48, threads=1, device="cuda", fast=True)
    assert isinstance(decoder, ThreadedDecoder)
    decoder.close()
    with pytest.raises(UsageError, match="turbo"):
        open_decoder("dali", LocalStore(), size=48, threads=1, device="cpu", fast=True)


def test_an_unknown_name_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="decoder is one of auto, turbo, dali; got 'pil'"):
        open_decoder("pil", LocalStore(), size=48, threads=1, device="cpu")  # type: ignore[arg-type]


@pytest.mark.skipif(find_spec("nvidia.dali") is None, reason="needs DALI")
def test_dali_is_there_for_those_who_name_it() -> None:
    decoder = open_decoder("dali", LocalStore(), size=48, threads=1, device="cpu")
    assert type(decoder).__name__ == "DaliDecoder"
    assert not decoder.wants_device(Encoding.parse("jpeg:95"))
    decoder.close()


def test_without_dali_naming_it_is_an_error_that_says_what_to_install() -> None:
    done = run_script(WITHOUT_DALI)
    assert done.returncode == 0, done.stderr
    assert "pip install -e '.[dali]'" in done.stdout
