"""One request of TorchServe's batch on its way through the handler; what fails in it stays with it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ts_handlers.batching.padding import ModelInput
from ts_handlers.errors import RequestError, row_error
from ts_handlers.requests.request import Protocol, Request
from ts_handlers.requests.response import Answer
from ts_handlers.shapes import Array

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True)
class Row:
    """One request, and what was made of it so far.

    Attributes:
        request: The request, once it is understood.
        examples: What `decode` made of each instance.
        inputs: What `transform` made of each example.
        outputs: What the model returned for each input of each example.
        protocol: The form an error is to have.
        answer: The finished answer.
        error: What ended this row early; its neighbours go on.
    """

    request: Request | None = None
    examples: list[Any] = field(default_factory=list)
    inputs: list[list[ModelInput]] = field(default_factory=list)
    outputs: list[list[dict[str, Array]]] = field(default_factory=list)
    protocol: Protocol = Protocol.PLAIN
    answer: Answer | None = None
    error: RequestError | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is work left to do on it."""
        return self.error is None and self.answer is None

    def attempt(self, step: Callable[..., object], *arguments: Any) -> None:
        """Take a step of this row; what fails in it ends this row and no other."""
        try:
            step(*arguments)
        except Exception as error:  # noqa: BLE001  # a hook's bug must not fail the other rows
            self.error = row_error(logger, "a handler hook", error)

    def call(self, index: int, hook: Callable[..., T], *arguments: Any) -> T:
        """Call a hook on one instance; say which one it was where there are many.

        Raises:
            RequestError: What the hook raises.
        """
        try:
            return hook(*arguments)
        except RequestError as error:
            if self.request is not None and self.request.is_many:
                raise error.prefixed(f"instance {index}") from error
            raise

    def take(self, outcome: dict[str, Array] | Exception) -> dict[str, Array]:
        """Return the outputs of one input; where the model run failed on it, that ends the row."""
        if isinstance(outcome, Exception):
            self.error = self.error or row_error(logger, "the model run", outcome)
            return {}
        return outcome


def open_rows(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield those with work left to do on them."""
    return (row for row in rows if row.is_open)
