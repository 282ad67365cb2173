"""What TorchServe would make of a config.properties: a server in, findings out."""

from __future__ import annotations

from typing import get_args

from ts_handlers.operate.check.finding import Finding, Severity, at_most
from ts_handlers.operate.check.machine import check_machine
from ts_handlers.operate.check.models import check_models
from ts_handlers.operate.check.reach import check_reach
from ts_handlers.operate.check.server import Server
from ts_handlers.operate.check.settings import check_settings
from ts_handlers.operate.check.values import check_values

__all__ = ["find_all"]

_CHECKS = (check_values, check_models, check_settings, check_reach, check_machine)


def find_all(server: Server) -> list[Finding]:
    """Return what is wrong with a configuration, the worst first; what follows from a fault of its text is left out."""
    text, is_given = server.text, server.place.model_store is not None
    faulty = {key for one in text.findings if one.severity == "problem" for key in one.key.split(", ")}
    said = [one for one in text.findings if not (is_given and one.key == "model_store")]
    others = (one for check in _CHECKS if text.is_text for one in at_most(check(server)))
    found = dict.fromkeys([*said, *(one for one in others if not {one.key, one.key.partition(":")[0]} & faulty)])
    return sorted(found, key=lambda finding: get_args(Severity).index(finding.severity))
