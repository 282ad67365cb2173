"""Every error a client or an operator can see, with its HTTP status.

A `RequestError` belongs to one row of a batch: that row is answered with its status and `body()`, its neighbours are
served. An `OperatorError` stops a model from loading (TorchServe reports only RuntimeError cleanly while it loads, so
it is one) or a command from running.
"""

from __future__ import annotations

import logging
import traceback
from typing import ClassVar


class RequestError(Exception):
    """What is wrong with one request: what was wrong, the value seen, what to do."""

    status: ClassVar[int] = 400
    phrase: ClassVar[str] = "Bad Request"

    def __init__(self, message: str, *, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.message = message.encode("utf-8", "backslashreplace").decode("utf-8")  # it may quote a lone surrogate
        self.code = code

    def body(self) -> dict[str, dict[str, str]]:
        """Return the JSON body the client receives."""
        return {"error": {"code": self.code, "message": self.message}}

    def prefixed(self, prefix: str) -> RequestError:
        """Return the same error with `prefix` (where in the request it happened) before its message."""
        return type(self)(f"{prefix}: {self.message}", code=self.code)


class PayloadTooLargeError(RequestError):
    """A request that is well formed and over a limit of this model: 413."""

    status = 413
    phrase = "Payload Too Large"

    def __init__(self, message: str, *, code: str = "payload_too_large") -> None:
        super().__init__(message, code=code)


class UnsupportedRequestError(RequestError):
    """A request for something this model does not offer (explanations, say): 501."""

    status = 501
    phrase = "Not Implemented"

    def __init__(self, message: str, *, code: str = "unsupported") -> None:
        super().__init__(message, code=code)


class InferenceError(RequestError):
    """The handler or the model failed on this row: 500. Details go to the log, never to the client."""

    status = 500
    phrase = "Internal Server Error"

    def __init__(self, message: str, *, code: str = "inference_failed") -> None:
        super().__init__(message, code=code)


class OperatorError(RuntimeError):
    """Something the operator must change: one clear line, exit code 2 on the command line."""


class ConfigError(OperatorError):
    """A configuration that cannot be used."""


class RuntimeUnavailableError(OperatorError):
    """A backend, provider or package that was asked for and is not there."""


def log_failure(logger: logging.Logger, what: str, error: Exception) -> None:
    """Log where something failed and as what; not the message, which can quote a request."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s failed with %s:\n%s", what, type(error).__name__, frames)
