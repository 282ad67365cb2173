"""Every error a client or an operator can see, with its HTTP status.

A `RequestError` belongs to one row of a batch: that row is answered with its status and `body()`, its neighbours are
served. An `OperatorError` stops a model from loading (TorchServe reports only RuntimeError cleanly while it loads, so
it is one) or a command from running.
"""

from __future__ import annotations

import logging
import re
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
        return {"error": {"code": str(self.code), "message": str(self.message)}}

    def prefixed(self, prefix: str) -> RequestError:
        """Return the same error with `prefix` (where in the request it happened) before its message."""
        error = type(self).__new__(type(self))  # a team's class can have a constructor of its own
        error.__dict__.update(self.__dict__)
        error.message = f"{prefix}: {self.message}"
        return error


class PayloadTooLargeError(RequestError):
    """A request that is well formed and over a limit of this model: 413."""

    status = 413
    phrase = "Payload Too Large"

    def __init__(self, message: str, *, code: str = "payload_too_large") -> None:
        super().__init__(message, code=code)


class UnsupportedMediaTypeError(RequestError):
    """A body of a type that this model cannot read: 415."""

    status = 415
    phrase = "Unsupported Media Type"

    def __init__(self, message: str, *, code: str = "unsupported_media_type") -> None:
        super().__init__(message, code=code)


class UnsupportedRequestError(RequestError):
    """A request for something this model does not offer (explanations, say): 501."""

    status = 501
    phrase = "Not Implemented"

    def __init__(self, message: str, *, code: str = "unsupported") -> None:
        super().__init__(message, code=code)


class InferenceError(RequestError):
    """The handler or the model failed on this row: 500. Its message is for the log; the client is told where to look."""

    status = 500
    phrase = "Internal Server Error"

    def __init__(self, message: str, *, code: str = "inference_failed") -> None:
        super().__init__(message, code=code)

    def body(self) -> dict[str, dict[str, str]]:
        """Return the JSON body the client receives, without the message."""
        return {"error": {"code": str(self.code), "message": "the model failed on this request; see the server's log"}}


class InsufficientMemoryError(InferenceError):
    """There was not enough memory for this row: 507, TorchServe's own status for it."""

    status = 507
    phrase = "Insufficient Storage"

    def __init__(self, message: str, *, code: str = "out_of_memory") -> None:
        super().__init__(message, code=code)


class DeviceLostError(InferenceError):
    """This process can compute nothing on its GPU any longer, whatever it is asked: 500, and the worker is to end."""

    def __init__(self, message: str, *, code: str = "device_lost") -> None:
        super().__init__(message, code=code)


class OperatorError(RuntimeError):
    """Something the operator must change: one clear line, exit code 2 on the command line."""


class ConfigError(OperatorError):
    """A configuration that cannot be used."""


class RuntimeUnavailableError(OperatorError):
    """A backend, provider or package that was asked for and is not there."""


def first_line(error: BaseException) -> str:
    """Return the first line of what another library says, or its error's name where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


_MAX_LENGTH = 600
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*m")


def all_lines(error: BaseException) -> str:
    """Return what another library says, on one line: its first line alone often leaves out the part that matters.

    What is long loses its middle: TorchScript names the operator's error last, and a state dict its first keys first.
    """
    text = _TERMINAL_CODES.sub("", str(error))
    whole = " ".join(line.strip() for line in text.splitlines() if line.strip())
    return _without_middle(whole, _MAX_LENGTH) or type(error).__name__


_MAX_SHOWN = 2000


def printable(text: str) -> str:
    """Return a text on one line of a terminal, whatever it quotes of a file: a line's end, colours, half a character."""
    line = _without_middle(" ".join(text.split()), _MAX_SHOWN)
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)


def _without_middle(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length // 2]} ... {text[-length // 2 :]}"


def reason(error: BaseException) -> str:
    """Return what to say of a failure: our own message, or the type and first line of another's."""
    if isinstance(error, OperatorError):
        return str(error)
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"


_ENGINES = frozenset({"onnxruntime", "openvino", "torch"})
_MAX_KINDS = 100
_logged_kinds: set[str] = set()

_LOST_DEVICE = re.compile(
    "illegal memory access|device-side assert|unspecified launch failure|misaligned address|illegal instruction|"
    "invalid program counter|hardware stack error|operation not supported on global/shared address space|"
    "launch timed out|uncorrectable|cudaErrorLaunchFailure|cudaErrorIllegalAddress|cudaErrorAssert|"
    r"CUDA (failure|error) (7(00|02|1[0-9])|214|220):"
)
"""CUDA errors after which "the process must be terminated and relaunched", as CUDA's list of cudaError_t has it."""


def row_error(logger: logging.Logger, what: str, error: Exception) -> RequestError:
    """Return what a failed row is answered, and log it where the operator should know.

    Another library's message can quote the request, so of most only type and place are logged. An engine is fed numbers:
    what it says is logged, too, once for each kind.
    """
    if isinstance(error, RequestError):
        if error.status >= 500 and not isinstance(error, UnsupportedRequestError):
            logger.error("%s failed: %s", what, error.message)
        return error
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s failed with %s%s:\n%s", what, type(error).__name__, _said_by_engine(error), frames)
    message = f"{what} failed with {type(error).__name__}"
    if _has_lost_device(error):
        return DeviceLostError(message)
    return (InsufficientMemoryError if isinstance(error, MemoryError) else InferenceError)(message)


def _said_by_engine(error: Exception) -> str:
    """Return an engine's message; nothing where somebody else raised it, or one that differs in numbers alone was logged."""
    module = ""
    for frame, _line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
    message = all_lines(error)
    kind = f"{type(error).__name__} {re.sub('[0-9]+', '', message)}"
    is_engine = module.partition(".")[0] in _ENGINES or module.startswith("ts_handlers.runtime.")
    if not is_engine or kind in _logged_kinds or len(_logged_kinds) >= _MAX_KINDS:
        return ""
    _logged_kinds.add(kind)
    return f" ({printable(message)})"


def _has_lost_device(error: Exception) -> bool:
    """Say whether an error is one of CUDA's that stay, by what ONNX Runtime and torch make of them.

    Nobody else's message counts, for it can quote a client: torch's begins so, ONNX Runtime has classes of its own.
    """
    message = str(error)
    is_torch = isinstance(error, RuntimeError) and message.startswith("CUDA error: ")
    is_onnx = type(error).__module__.startswith("onnxruntime.") and "CUDA" in message
    return (is_torch or is_onnx) and _LOST_DEVICE.search(message) is not None
