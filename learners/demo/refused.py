"""The error of a request that is refused."""

from __future__ import annotations

from http import HTTPStatus

from pipeline.errors import PipelineError


class RefusedRequest(PipelineError):
    """A sentence for the person at the page, and the status for the browser."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
