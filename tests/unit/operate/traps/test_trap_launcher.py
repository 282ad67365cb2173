from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.operate.traps.sites import IN_POD, LAUNCHER, MACHINE, YAML, Site, expect
from ts_handlers.operate.traps.subject import Machine

ARGS = "cpu_launcher_args"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("--core-list 0,1", "--ncores-per-instance with it"),
        ("--core-list 0,1  --ncores-per-instance 1", "single blanks"),
        ("--core_list=0,1 --ncores_per_instance=1 --ninstances 2", "adds it for each worker itself"),
        ("--core-list 0,1 --ncores-per-instance 1 --fast", "no option of torch.backends.xeon.run_cpu"),
        ("--core-list 0,9 --ncores-per-instance 1", "may use 0-1"),
        ("--core-list 0-1 --ncores-per-instance 1", "numbers and commas only"),
        ("--core-list 0,1 --ncores-per-instance 2", "the last workers get none"),
    ],
)
def test_arguments_that_bind_nobody_or_wrongly(site: Site, args: str, words: str) -> None:
    site.values.update(LAUNCHER | {ARGS: args})
    expect(site, "problem", ARGS, words)


def test_a_launcher_without_a_list_of_cores(site: Site) -> None:
    site.values.update(LAUNCHER | {ARGS: ""})
    expect(site, "hint", ARGS, "no --core-list")


def test_a_launcher_restarts_all_workers_when_their_number_changes(site: Site) -> None:
    site.values.update(LAUNCHER)
    expect(site, "hint", "cpu_launcher_enable", "ends and starts all")


def test_arguments_of_a_launcher_that_is_off(site: Site) -> None:
    site.values[ARGS] = "--rank 1"
    expect(site, "hint", ARGS, "nobody reads it")


@pytest.mark.parametrize(
    ("machine", "changes", "severity", "key", "words"),
    [
        (IN_POD, {}, "warning", "cpu_launcher_enable", "knows nothing of quotas"),
        (IN_POD, {ARGS: ""}, "problem", ARGS, "this container has CPUs 0-3"),
        (replace(MACHINE, python=None), {}, "problem", "cpu_launcher_enable", "no `python` on PATH"),
    ],
)
def test_a_machine_it_is_not_for(
    site: Site, machine: Machine, changes: dict[str, str], severity: str, key: str, words: str
) -> None:
    site.machine = machine
    site.values.update(LAUNCHER | changes)
    expect(site, severity, key, words)


def test_launched_workers_of_two_models_meet(site: Site, write_mar: Callable[..., Path]) -> None:
    write_mar("other", "1.0", config=YAML)
    site.values.update(LAUNCHER | {"load_models": "mini-1.0.mar,other-1.0.mar"})

    expect(site, "problem", "cpu_launcher_enable", "true, with 2 models")
