"""A torch module -> a package (.pt2) of compiled code: exported, and compiled ahead of time for a CPU."""

from __future__ import annotations

from ts_handlers.build.compile.inductor import check_compiler, compile_package
from ts_handlers.build.compile.program import copy_model, export_model, export_module

__all__ = ["check_compiler", "compile_package", "copy_model", "export_model", "export_module"]
