"""Batches side by side, under TorchServe's asyncCommunication: `bench.overlap` puts this file into an archive.

TorchServe hands such a worker every request at once and awaits `handle` for each. It needs batchSize 1: with two requests in
a batch the frontend's thread of the worker ends (ConcurrentModificationException in AsyncBatchAggregator.getRequest, 0.12).
So batches are made here. Not for production, as the frontend's source reads: its queue is always empty, so that nothing is
refused with 503 and no scaling sees load; no response has to come within responseTimeout; and requests that were answered
stay in its memory. A batch that fails as a whole ends the worker's connection.
"""

from __future__ import annotations

import asyncio
import copy
from typing import Any

from ts_handlers import InferenceHandler

BATCH_SIZE = 8
AT_A_TIME = 2
"""Batches: one whose model runs, and one that is prepared meanwhile."""


class SideBySide(InferenceHandler):
    """Mixed into a handler before its base."""

    _waiting: asyncio.Queue[tuple[dict[str, Any], Any, asyncio.Future[bytes]]] | None = None
    _answering: tuple[asyncio.Task[None], ...] = ()

    async def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:  # type: ignore[override]
        """Answer one request, in a batch with others that wait."""
        if self._waiting is None:
            self._waiting = asyncio.Queue()
            self._answering = tuple(asyncio.create_task(self._answer(self._waiting)) for _ in range(AT_A_TIME))
        (row,) = data
        answer = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((row, context, answer))
        return [await answer]

    async def _answer(self, waiting: asyncio.Queue[tuple[dict[str, Any], Any, asyncio.Future[bytes]]]) -> None:
        while True:
            taken = [await waiting.get()]
            while len(taken) < BATCH_SIZE and not waiting.empty():
                taken.append(waiting.get_nowait())
            rows, contexts, answers = zip(*taken, strict=True)
            mine = copy.copy(self)
            mine.context = _Together(contexts)
            try:
                responses = await asyncio.to_thread(InferenceHandler.handle, mine, list(rows), mine.context)
            except Exception as error:  # noqa: BLE001  # TorchServe answers with it
                for answer in answers:
                    answer.set_exception(error)
            else:
                for answer, response in zip(answers, responses, strict=True):
                    answer.set_result(response)


class _Together:
    """The contexts of some requests as that of one batch."""

    def __init__(self, contexts: tuple[Any, ...]) -> None:
        self._contexts = contexts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._contexts[0], name)

    def get_all_request_header(self, index: int) -> dict[str, str]:
        headers: dict[str, str] = self._contexts[index].get_all_request_header(0)
        return headers

    def set_response_content_type(self, index: int, value: str) -> None:
        self._contexts[index].set_response_content_type(0, value)

    def set_response_status(self, code: int, phrase: str, index: int) -> None:
        self._contexts[index].set_response_status(code, phrase, 0)
