"""What is said of a server's failures, in text that the server may have chosen."""

from __future__ import annotations

from typing import Final

import pytest

from pipeline.errors import IntegrityError, PipelineError, SourceMissing
from pipeline.store.server_errors import RemoteFileMissing, ServerOutages, describe_failure

HOSTILE: Final = "\x1b[2Jgone\udcff\nsecond line" + "x" * 10_000


class StatusError(Exception):
    def __init__(self, status: object) -> None:
        super().__init__(HOSTILE)
        self.status = status


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError(HOSTILE), RemoteFileMissing),
        (StatusError(410), RemoteFileMissing),
        (PermissionError(HOSTILE), SourceMissing),
        (StatusError(401), SourceMissing),
        (StatusError(451), SourceMissing),
        (StatusError(416), IntegrityError),
    ],
)
def test_failures_that_stay_end_the_tries_in_one_printable_line(
    error: Exception, kind: type[PipelineError]
) -> None:
    with pytest.raises(kind) as caught:
        describe_failure(error, "s3://bucket/a, bytes 0 to 9,", 30)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    assert ",:" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TimeoutError(), "no answer in 30 s"),
        (StatusError(503), "StatusError 503"),
        (StatusError("many"), "StatusError many"),
        (OSError(HOSTILE), "OSError ?[2Jgone?"),
        (MemoryError(), "MemoryError MemoryError"),
        (OSError(" \n"), "OSError OSError"),
    ],
)
def test_failures_that_may_pass_are_described(error: Exception, text: str) -> None:
    assert describe_failure(error, "it", 30).startswith(text)
    assert describe_failure(error, "it", 30).isprintable()


def test_an_outage_is_shared_by_what_was_wanted_before_it_on_that_server() -> None:
    outages = ServerOutages()
    before = outages.number("http://a")
    outages.raise_later_than("http://a", before)
    outages.add("http://a", "a is gone")
    outages.raise_later_than("http://b", before)
    outages.raise_later_than("http://a", outages.number("http://a"))
    with pytest.raises(SourceMissing, match="a is gone"):
        outages.raise_later_than("http://a", before)
