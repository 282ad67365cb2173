"""All checks in one: a server in, findings out."""

from __future__ import annotations

from ts_handlers.operate.check.finding import Finding, at_most, worst_first
from ts_handlers.operate.check.launcher import check_launcher
from ts_handlers.operate.check.machine import check_machine
from ts_handlers.operate.check.metrics import check_metrics
from ts_handlers.operate.check.models import check_models
from ts_handlers.operate.check.reach import check_reach
from ts_handlers.operate.check.server import Server
from ts_handlers.operate.check.settings import check_settings
from ts_handlers.operate.check.values import check_values

CHECKS = (check_values, check_models, check_settings, check_reach, check_machine, check_metrics, check_launcher)


def find_all(server: Server) -> list[Finding]:
    """Return what is wrong with a configuration, the worst first; what follows from a fault of its text is left out."""
    text = server.text
    others = (one for check in CHECKS for one in at_most(check(server)) if not text.is_said(one))
    return worst_first([*text.findings, *(others if text.is_text else ())])
