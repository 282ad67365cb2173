"""Which methods a build tries, and why it leaves others out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ts_handlers.build.engine import Method
from ts_handlers.build.methods.catalogue import METHODS, find_method, missing_packages
from ts_handlers.build.request import AUTO, BuildRequest
from ts_handlers.errors import OperatorError
from ts_handlers.tasks import TASKS

EXTRAS = {
    "openvino": "openvino",
    "nncf": "nncf",
    "torchao": "torchao",
    "neural_compressor": "inc",
    "intel_extension_for_pytorch": "ipex",
}
"""Module -> the extra that brings it; the serving image needs those of the backends openvino and ipex, too."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What is tried.

    Attributes:
        methods: The methods, in the catalogue's order.
        left_out: Name of each method left out -> the reason.
    """

    methods: tuple[Method, ...]
    left_out: dict[str, str]


def candidates(request: BuildRequest) -> Candidates:
    """Return the methods that the request leaves open: one, or, with `auto`, many.

    Raises:
        OperatorError: There is none, or the one that is asked for cannot be had here.
    """
    if AUTO not in (request.precision, request.backend, request.quantizer):
        quantizer = request.quantizer or _default_quantizer(request)
        method = find_method(request.backend, request.precision, quantizer, request.form)
        if reason := _reason_against(method, request):
            raise OperatorError(f"{method.name} {reason}")
        return Candidates((method,), {})
    if not request.is_judged:
        raise OperatorError("auto compares engines on your data; give --evaluation FILE, --calibration FILE, or both")
    open_to = [method for method in METHODS if _matches(method, request)]
    if request.quantizer not in (None, AUTO):
        _check_quantizer(request, open_to)
    else:
        open_to = [method for method in open_to if method.is_automatic]
    reasons = {method.name: reason for method in open_to if (reason := _reason_against(method, request))}
    methods = tuple(method for method in open_to if method.name not in reasons)
    if request.quantizer not in (None, AUTO) and not any(method.quantizer == request.quantizer for method in methods):
        named = [method.name for method in open_to if method.quantizer == request.quantizer]
        raise OperatorError("; ".join(f"{name} {reasons[name]}" for name in named))
    if not methods:
        why = "; ".join(f"{name} {reason}" for name, reason in reasons.items()) or "there is no such method"
        raise OperatorError(f"there is nothing to choose from: {why}")
    return Candidates(methods, reasons)


def _check_quantizer(request: BuildRequest, open_to: Sequence[Method]) -> None:
    """Refuse a name that no method has here: it would be dropped, and something else built."""
    if not any(method.quantizer == request.quantizer for method in open_to):
        known = ", ".join(dict.fromkeys(method.quantizer for method in METHODS if method.quantizer))
        raise OperatorError(
            f"--quantizer {request.quantizer} is of no method of --backend {request.backend} --precision "
            f"{request.precision}; there are {known}"
        )


def _is_of_images(request: BuildRequest) -> bool:
    return TASKS[request.task].instances == "image"


def _default_quantizer(request: BuildRequest) -> str | None:
    """Convolutions have no INT8 that scales activations at run time, so that images need ranges."""
    if _is_of_images(request) and (request.backend, request.precision) == ("onnx", "int8"):
        return "static-percentile"
    return None


def _matches(method: Method, request: BuildRequest) -> bool:
    return (
        request.precision in (AUTO, method.precision)
        and request.backend in (AUTO, method.backend)
        and (request.quantizer in (None, AUTO) or method.quantizer in (None, request.quantizer))
        and request.form in (None, method.form)
    )


def _reason_against(method: Method, request: BuildRequest) -> str:
    if _is_of_images(request) and not method.takes_images:
        return f"is for texts, and {request.task} takes images"
    if missing := missing_packages(method):
        extras = ",".join(dict.fromkeys(EXTRAS[package] for package in missing))
        return f"needs {', '.join(missing)}; install ts_handlers[{extras}]"
    if method.needs_calibration and request.calibration is None:
        return "measures activations; give --calibration FILE"
    return ""
