"""All methods, and which of them a build tries. What they need is imported where it is used."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from ts_handlers.build.engine import Method
from ts_handlers.build.methods import onnx, openvino, smooth, torch_compiled, torch_eager
from ts_handlers.build.request import AUTO, BuildRequest
from ts_handlers.config.tasks import TASKS
from ts_handlers.errors import OperatorError

METHODS: tuple[Method, ...] = (
    *onnx.FLOATS,
    onnx.DYNAMIC,
    *onnx.STATIC,
    *smooth.METHODS,
    onnx.BLOCKS,
    *openvino.METHODS,
    *torch_eager.METHODS,
    *torch_compiled.METHODS,
    *torch_eager.IPEX,
)
"""The first of a backend and precision is its default."""

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


def find_method(backend: str, precision: str, quantizer: str | None, form: str | None = None) -> Method:
    """Return the method for these options; `auto` and None as quantizer, and None as form, take the first one.

    Raises:
        OperatorError: There is none, with what there is.
    """
    of_backend = [method for method in METHODS if method.backend == backend]
    found = [method for method in of_backend if method.precision == precision]
    if not found:
        have = dict.fromkeys(method.precision for method in of_backend)
        raise OperatorError(f"--backend {backend} has no {precision}; it has {', '.join(have)}")
    for option, value in (("form", form), ("quantizer", None if quantizer == AUTO else quantizer)):
        names = dict.fromkeys(getattr(method, option) for method in found if getattr(method, option))
        found = [method for method in found if value in (None, getattr(method, option))]
        if not found:
            have_not = f"--backend {backend} --precision {precision} has no --{option} {value}"
            raise OperatorError(f"{have_not}; it has {', '.join(names) or 'none'}")
    return found[0]


def missing_packages(method: Method) -> list[str]:
    """Return the modules a method needs that cannot be found here."""
    return [package for package in method.packages if importlib.util.find_spec(package) is None]


def candidates(request: BuildRequest) -> Candidates:
    """Return the methods that the request leaves open: one, or, with `auto`, many.

    Raises:
        OperatorError: There is none, or the one that is asked for cannot be had here.
    """
    is_of_images = TASKS[request.task].instances == "image"
    if AUTO not in (request.precision, request.backend, request.quantizer):
        quantizer = request.quantizer
        if quantizer is None and is_of_images and (request.backend, request.precision) == ("onnx", "int8"):
            quantizer = "static-percentile"  # no INT8 of convolutions scales activations at run time
        method = find_method(request.backend, request.precision, quantizer, request.form)
        if reason := _reason_against(method, request, is_of_images=is_of_images):
            raise OperatorError(f"{method.name} {reason}")
        return Candidates((method,), {})
    if not request.is_judged:
        raise OperatorError("auto compares engines on your data; give --evaluation FILE, --calibration FILE, or both")
    open_to = _open_to(request)
    reasons = {method.name: _reason_against(method, request, is_of_images=is_of_images) for method in open_to}
    left_out = {name: reason for name, reason in reasons.items() if reason}
    methods = tuple(method for method in open_to if method.name not in left_out)
    if request.quantizer not in (None, AUTO) and not any(method.quantizer for method in methods):
        named = [method.name for method in open_to if method.quantizer]
        raise OperatorError("; ".join(f"{name} {left_out[name]}" for name in named))
    if not methods:
        why = "; ".join(f"{name} {reason}" for name, reason in left_out.items()) or "there is no such method"
        raise OperatorError(f"there is nothing to choose from: {why}")
    return Candidates(methods, left_out)


def _open_to(request: BuildRequest) -> Sequence[Method]:
    """Return the methods that the options allow. A quantizer that is named is never dropped for something else."""
    found = [
        method
        for method in METHODS
        if request.precision in (AUTO, method.precision)
        and request.backend in (AUTO, method.backend)
        and request.form in (None, method.form)
    ]
    if request.quantizer in (None, AUTO):
        return [method for method in found if method.is_automatic]
    found = [method for method in found if method.quantizer in (None, request.quantizer)]
    if not any(method.quantizer for method in found):
        known = ", ".join(dict.fromkeys(method.quantizer for method in METHODS if method.quantizer))
        raise OperatorError(
            f"--quantizer {request.quantizer} is of no method of --backend {request.backend} --precision "
            f"{request.precision}; there are {known}"
        )
    return found


def _reason_against(method: Method, request: BuildRequest, *, is_of_images: bool) -> str:
    if is_of_images and not method.takes_images:
        return f"is for texts, and {request.task} takes images"
    if missing := missing_packages(method):
        extras = ",".join(dict.fromkeys(EXTRAS[package] for package in missing))
        return f"needs {', '.join(missing)}; install ts_handlers[{extras}]"
    if method.needs_calibration and request.calibration is None:
        return "measures activations; give --calibration FILE"
    return ""
