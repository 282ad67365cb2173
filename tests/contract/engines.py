"""Which engines this machine can make and run, and with which models they are tested."""

from __future__ import annotations

import shutil

import pytest

from tests.model_dirs import TINY_KINDS
from ts_handlers.build.engine import Method
from ts_handlers.build.methods.catalogue import METHODS, missing_packages
from ts_handlers.build.target import NATIVE, target_cpu

HERE = target_cpu(NATIVE)


def runs_here(method: Method) -> bool:
    """Say whether this machine has what a method needs: its packages, and a CPU that it makes engines for."""
    needs_bf16 = method.precision == "bf16" and (method.backend == "openvino" or method.form == "compiled")
    needs_vnni = method.quantizer in ("torchao", "inc")
    return not missing_packages(method) and (HERE.has_bf16 or not needs_bf16) and (HERE.has_vnni or not needs_vnni)


ENGINES = tuple(filter(runs_here, METHODS))

COSTLY = tuple(
    # a compiler takes 15 s for a package, NNCF and the choice of shapes 5 s for a graph: once each, for one model
    engine
    for engine in ENGINES
    if engine.form == "compiled" or (engine.backend, engine.precision) in {("openvino", "bf16"), ("openvino", "int8")}
)


def is_made_here(engine: Method) -> bool:
    """Say whether compiled code can be made: it needs a compiler, and a CPU that has bf16 or VNNI for itself."""
    fits = {"bf16": HERE.has_bf16, "int8": HERE.has_vnni}.get(engine.precision, True)
    return engine.form != "compiled" or (fits and shutil.which("g++") is not None)


ENGINES_BY_KIND = tuple(
    pytest.param(
        *(kind, engine),
        id=f"{kind}-{engine.name.replace(' ', '-')}",
        marks=pytest.mark.slow if engine.form == "compiled" and engine.precision != "fp32" else (),
    )
    for kind in TINY_KINDS
    for engine in ENGINES
    if (engine not in COSTLY or kind == TINY_KINDS[0]) and is_made_here(engine)
)
