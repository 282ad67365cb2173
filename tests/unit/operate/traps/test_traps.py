"""Each of TorchServe's traps once: a sound file, one thing changed, and what the check says of it.

The traps of each subject are in the file beside this one that is named for it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operate.traps.sites import IN_POD, MACHINE, Site
from ts_handlers.errors import ConfigError
from ts_handlers.operate.torchserve import properties
from ts_handlers.operate.torchserve.keys import KNOWN
from ts_handlers.operate.traps.check import find_traps
from ts_handlers.operate.traps.subject import gather, gather_text, this_machine


def test_what_configure_writes_has_no_finding_at_all(site: Site) -> None:
    assert site.findings() == []


@pytest.mark.parametrize(
    ("environ", "changes"),
    [
        ({"TS_JOB_QUEUE_SIZE": "1"}, {}),
        ({"TS_JOB_QUEUE_SIZE": "100"}, {"enable_envvars_config": "true"}),
        ({"TS_ALLOWED_URLS": ".*"}, {"enable_envvars_config": "true"}),
        ({"SIZE": "100"}, {"job_queue_size": "$$SIZE$$"}),
        ({}, {"load_models": "ALL"}),
        ({}, {"allowed_urls": "(?<name>[", "job_queue_size": "200"}),
        ({}, {"metrics_address": "unix:/tmp/x.sock"}),
        ({}, {"enable_metrics_api": "false", "metrics_address": "http://127.0.0.1:8080"}),
        ({}, {"inference_address": "https://127.0.0.1:8443", "keystore": "x"}),
    ],
)
def test_what_is_no_trap_is_left_alone(site: Site, environ: dict[str, str], changes: dict[str, str]) -> None:
    site.environ = environ
    site.values.update(changes)

    assert site.findings() == []


def test_the_file_that_ts_config_file_names_by_another_path_is_this_one(site: Site) -> None:
    link = site.store / "link.properties"
    link.symlink_to(site.store / "config.properties")
    site.environ = {"TS_CONFIG_FILE": str(link)}

    assert site.findings() == []


@given(st.dictionaries(st.sampled_from([*KNOWN, "x"]), st.text(max_size=12) | st.sampled_from(["true", "0", "1"])))
def test_any_values_are_judged_and_none_breaks_the_check(values: dict[str, str]) -> None:
    text = properties.render(properties.Entry(key, value) for key, value in values.items())
    found = find_traps(gather_text(Path("/nowhere/config.properties"), text, {}, MACHINE))

    assert all(one.key and one.why and one.remedy for one in found)


def test_a_file_that_is_none_cannot_be_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        gather(tmp_path / "no.properties")


def test_this_machine_is_looked_at() -> None:
    machine = this_machine()

    assert machine.budget.affinity
    assert machine.num_node_cpus >= len(machine.budget.affinity)
    assert machine.memory_mb > 0


def test_a_stock_file_is_understood(tmp_path: Path, write_mar: Callable[..., Path]) -> None:
    """As TorchServe's own documentation begins: addresses, a store and everything in it."""
    store = write_mar("mini", "1.0").parent
    file = tmp_path / "config.properties"
    file.write_text(f"inference_address=http://0.0.0.0:8080\nmodel_store={store}\nload_models=all\n")
    found = find_traps(gather(file, {}, IN_POD))

    assert [one.severity for one in found] == sorted(
        (one.severity for one in found), key=["problem", "warning", "hint"].index
    )
    assert {(one.severity, one.key) for one in found} >= {
        ("problem", "models: mini 1.0"),
        ("warning", "vmargs"),
        ("warning", "allowed_urls"),
        ("warning", "metrics_mode"),
    }
