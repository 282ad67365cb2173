"""How large requests and answers may be: as the models' own limits have it, and as the frontend's heap holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ts_handlers.config import DEFAULT_BODY_BYTES, ROOT, LimitsConfig
from ts_handlers.operate.memory import MIB
from ts_handlers.operate.torchserve.archives import Archive
from ts_handlers.settings import from_mapping

REQUESTS_IN_HEAP = 8
"""Largest requests that fill the heap: each lies there once as it came and once as it goes to the worker."""

ANSWERS_IN_HEAP = 32
"""Largest answers that fill it: those of a whole batch come at once, and are copied on their way."""


@dataclass(frozen=True, slots=True)
class BodyPlan:
    """How large a request and an answer may be.

    Attributes:
        max_request_bytes: Largest request.
        max_response_bytes: Largest answer.
        largest_from: The model whose limits allow the largest request; None where TorchServe's default is enough.
        largest_bytes: What they allow, more than max_request_bytes where the heap does not hold it.
    """

    max_request_bytes: int
    max_response_bytes: int
    largest_from: str | None
    largest_bytes: int


def plan_bodies(archives: Sequence[Archive], heap_mb: int) -> BodyPlan:
    """Decide both.

    Args:
        archives: The models, at least one.
        heap_mb: The frontend's largest heap, MiB.

    Raises:
        ConfigError: The limits of an archive cannot be read.
    """
    heap = heap_mb * MIB
    sizes = {f"{archive.model_name} {archive.version}": largest_request(archive) for archive in archives}
    model, largest = max(sizes.items(), key=lambda item: item[1])
    return BodyPlan(
        max_request_bytes=max(DEFAULT_BODY_BYTES, min(largest, heap // REQUESTS_IN_HEAP)),
        max_response_bytes=max(DEFAULT_BODY_BYTES, heap // ANSWERS_IN_HEAP),
        largest_from=model if largest > DEFAULT_BODY_BYTES else None,
        largest_bytes=largest,
    )


def largest_request(archive: Archive) -> int:
    """Return the largest request that an archive's own limits allow, in bytes; for another's handler TorchServe's default.

    Raises:
        ConfigError: Its limits cannot be read.
    """
    handler = (archive.settings or {}).get("handler")
    if not isinstance(handler, Mapping) or not isinstance(handler.get("task"), str):
        return DEFAULT_BODY_BYTES
    limits = from_mapping(LimitsConfig, handler.get("limits", {}), f"{archive.path}: {ROOT}.limits")
    is_image = handler["task"].startswith(("image-", "object-"))
    return limits.max_body_bytes(is_image=is_image)
