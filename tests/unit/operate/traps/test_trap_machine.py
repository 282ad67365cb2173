from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.unit.operate.traps.sites import IN_POD, MACHINE, Site, expect
from ts_handlers.cpu import CpuBudget
from ts_handlers.operate.traps.subject import Machine


@pytest.mark.parametrize(
    ("changes", "severity", "key", "words"),
    [
        ({"blacklist_env_vars": ".*PATH"}, "warning", "blacklist_env_vars", "keeps PATH, LD_LIBRARY_PATH"),
        ({"vmargs": "-XX:ActiveProcessorCount=2"}, "warning", "vmargs", "without -Xmx"),
        ({"vmargs": "-Xmx7g"}, "warning", "vmargs", "more than half of 8192"),
        ({"prefer_direct_buffer": "true"}, "warning", "prefer_direct_buffer", "outside the heap"),
        ({"max_request_size": "6"}, "warning", "max_request_size", "it is in bytes"),
        ({"max_request_size": "1073741824"}, "warning", "max_request_size", "fill the heap"),
        ({"number_of_gpu": None}, "hint", "number_of_gpu", "every GPU"),
        ({"ipex_enable": "true"}, "hint", "ipex_enable", "stock base handler"),
        ({"number_of_netty_threads": None}, "hint", "number_of_netty_threads", "here 4"),
        ({"model_store": None}, "warning", "model_store", "--model-store"),
        ({"model_store": "."}, "warning", "model_store", "counts from the folder"),
        ({"model_store": "/nowhere/at/all"}, "problem", "model_store", "no such folder"),
    ],
)
def test_a_value(site: Site, changes: Mapping[str, str | None], severity: str, key: str, words: str) -> None:
    site.values.update(changes)
    expect(site, severity, key, words)


@pytest.mark.parametrize(
    ("machine", "changes", "severity", "key", "words"),
    [
        (IN_POD, {"vmargs": "-Xmx512m"}, "warning", "vmargs", "count the node's 64 CPUs instead of 2"),
        (replace(MACHINE, budget=CpuBudget((0,))), {}, "warning", "models", "2 workers: there are 1 CPUs"),
    ],
)
def test_the_machine(
    site: Site, machine: Machine, changes: dict[str, str], severity: str, key: str, words: str
) -> None:
    site.machine = machine
    site.values.update(changes)
    expect(site, severity, key, words)


def test_a_broken_build_report_is_a_warning(site: Site) -> None:
    (site.store / "mini.build.json").write_text("{")
    expect(site, "warning", "build reports", "is not JSON")


def test_workers_that_do_not_fit_by_their_build_reports(site: Site) -> None:
    report = {"name": "mini", "version": "1.0", "rss_mb": 3500}
    (site.store / "mini.build.json").write_text(json.dumps(report))
    expect(site, "problem", "models", "the kernel would end one")
