"""All checks in one: a subject in, findings out."""

from __future__ import annotations

from ts_handlers.operate.traps.archives import check_archives
from ts_handlers.operate.traps.finding import Finding, worst_first
from ts_handlers.operate.traps.keys import check_keys
from ts_handlers.operate.traps.launcher import check_launcher
from ts_handlers.operate.traps.machine import check_machine
from ts_handlers.operate.traps.metrics import check_metrics
from ts_handlers.operate.traps.models import check_models
from ts_handlers.operate.traps.reach import check_reach
from ts_handlers.operate.traps.subject import Subject

CHECKS = (check_keys, check_models, check_archives, check_reach, check_machine, check_metrics, check_launcher)


def find_traps(subject: Subject) -> list[Finding]:
    """Return what is wrong with a configuration, the worst first."""
    return worst_first(finding for check in CHECKS for finding in check(subject))
