"""All methods. Their modules import what they need where it is used, so that this list costs nothing."""

from __future__ import annotations

import importlib.util

from ts_handlers.build.engine import Method
from ts_handlers.build.methods import (
    ipex_eager,
    onnx_blocks,
    onnx_dynamic,
    onnx_fp16,
    onnx_fp32,
    onnx_mixed,
    onnx_smooth,
    onnx_static,
    openvino,
    torch_compiled,
    torch_eager,
    torch_inc,
    torch_torchao,
)
from ts_handlers.errors import OperatorError

METHODS: tuple[Method, ...] = (
    *onnx_fp32.METHODS,
    *onnx_fp16.METHODS,
    *onnx_dynamic.METHODS,
    *onnx_static.METHODS,
    *onnx_smooth.METHODS,
    *onnx_mixed.METHODS,
    *onnx_blocks.METHODS,
    *openvino.METHODS,
    *torch_eager.METHODS,
    *torch_compiled.METHODS,
    *torch_torchao.METHODS,
    *torch_inc.METHODS,
    *ipex_eager.METHODS,
)
"""The first of a backend and precision is its default."""


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
    if form is not None:
        forms = " and ".join(dict.fromkeys(method.form for method in found if method.form)) or "none"
        found = [method for method in found if method.form == form]
        if not found:
            raise OperatorError(f"--backend {backend} --precision {precision} has no --form {form}; it has {forms}")
    if quantizer in (None, "auto"):
        return found[0]
    for method in found:
        if method.quantizer == quantizer:
            return method
    names = ", ".join(method.quantizer for method in found if method.quantizer)
    raise OperatorError(
        f"--backend {backend} --precision {precision} has no --quantizer {quantizer}; it has {names or 'none'}"
    )


def missing_packages(method: Method) -> list[str]:
    """Return the modules a method needs that cannot be found here."""
    return [package for package in method.packages if importlib.util.find_spec(package) is None]
