"""What the check says of a whole file, and of its text; single traps are in the files beside this one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operate.check.sites import IN_POD, MACHINE, Site, expect
from ts_handlers.errors import ConfigError
from ts_handlers.operate.check import find_all
from ts_handlers.operate.check.server import Place, gather
from ts_handlers.operate.machine import this_machine
from ts_handlers.operate.torchserve import properties
from ts_handlers.operate.torchserve.keys import KNOWN


@pytest.mark.parametrize(
    ("environ", "changes"),
    [
        ({}, {}),
        ({"TS_JOB_QUEUE_SIZE": "1"}, {}),
        ({"TS_JOB_QUEUE_SIZE": "100"}, {"enable_envvars_config": "true"}),
        ({"TS_ALLOWED_URLS": ".*"}, {"enable_envvars_config": "true"}),
        ({"SIZE": "100"}, {"job_queue_size": "$$SIZE$$"}),
        ({}, {"load_models": "ALL"}),
        ({}, {"allowed_urls": "(?<name>[", "job_queue_size": "200"}),
        ({}, {"metrics_address": "unix:/tmp/x.sock"}),
        ({}, {"enable_metrics_api": "false", "metrics_address": "http://127.0.0.1:8080"}),
    ],
)
def test_what_is_no_trap_is_left_alone(site: Site, environ: dict[str, str], changes: dict[str, str]) -> None:
    """What configure writes, to begin with."""
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
    found = find_all(gather(Path("/nowhere/config.properties"), {}, MACHINE, Place(is_here=False), text=text))

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
    found = find_all(gather(file, {}, IN_POD))

    assert [one.severity for one in found] == sorted(
        (one.severity for one in found), key=["problem", "warning", "hint"].index
    )
    assert {(one.severity, one.key) for one in found} >= {
        ("problem", "models: mini 1.0"),
        ("hint", "models: mini 1.0"),
        ("warning", "vmargs"),
        ("warning", "allowed_urls"),
        ("warning", "metrics_mode"),
    }


@pytest.mark.parametrize(
    ("tail", "severity", "key", "words"),
    [
        ("job_queue_size=100\n", "warning", "job_queue_size", "only its last line counts"),
        ("allowed_urls=https://x\\.org/.*\n", "warning", "allowed_urls", "drops a single backslash"),
        ("allowed_urls=(?!)\\\nnumber_of_gpu=1\n", "warning", "allowed_urls", "the next line part of it"),
        ("vmargs: -Xmx512m\n", "warning", "vmargs", "`torchserve` itself reads this line"),
        ("vmargs=-Xmx512m \\\n -Dx=y\n", "warning", "vmargs", "`torchserve` itself reads this line"),
        ("'''\nThis is no comment\n'''\n", "warning", "'''", "3 lines that are no properties"),
        ("'''\nmetrics_mode=prometheus\n'''\n", "problem", "'''", "metrics_mode between them holds"),
        ("// a remark\n", "warning", "//", "only # and !"),
        ("-XX:+UseG1GC\n", "warning", "-XX", "only # and !"),
        ("colour blue\n", "warning", "colour", "it is ignored"),
        ("job_queue_size=100  # enough\n", "problem", "job_queue_size", "write 100 and nothing behind it"),
        ("metrics_mode=prometheus \t# all\n", "problem", "metrics_mode", "write prometheus and nothing behind it"),
        ("number_of_gpu=0 \n", "problem", "number_of_gpu", "Java keeps the blanks"),
        ("number_of_gpu='0'\n", "problem", "number_of_gpu", "the quotes belong to the value"),
        ("workflow_store=${HOME}/flows\n", "problem", "workflow_store", "only $$NAME$$ is expanded"),
        ("workflow_store=$HOME/flows\n", "problem", "workflow_store", "only $$NAME$$ is expanded"),
        ("workflow_store=~/flows\n", "problem", "workflow_store", "only $$NAME$$ is expanded"),
        ("vmargs=-Xmx$$HEAP$$\n", "problem", "vmargs", "expands no variable"),
        ("keystore_pass=p\u00e4ss\n", "problem", "keystore_pass", "a password, not shown"),
        ("metrics_config=/mod\u00e8les/m.yaml\n", "problem", "metrics_config", "ISO-8859-1"),
        ("models={\u201cmini\u201d: {\u201c1.0\u201d: {}}}\n", "problem", "models", "curly quotes"),
        ('models={\n"mini": {\n"1.0": {"minWorkers": 1}\n}\n}\n', "problem", "models", "over several lines"),
        ('models=\n{"mini": {"1.0": {}}}\n', "problem", "models", "over several lines"),
        ('models={"mini": {\\ \n"1.0": {"minWorkers": 1}}}\n', "problem", "models", "over several lines"),
        ("load_models=mini-1.0.mar,\n  other.mar\n", "problem", "load_models", "over several lines"),
    ],
)
def test_a_line(site: Site, tail: str, severity: str, key: str, words: str) -> None:
    """One cause is one finding, but for keys that the tail repeats."""
    repeated = {line.partition("=")[0].partition(":")[0] for line in tail.splitlines()} & set(site.values)
    site.values = {name: value for name, value in site.values.items() if name not in repeated or severity == "warning"}
    site.tail = tail.encode().decode("iso-8859-1")
    expect(site, severity, key, words)
    if severity == "problem":
        assert [one.key for one in site.findings() if one.severity != "hint"] == [key]


def test_a_byte_order_mark_hides_the_first_property(site: Site) -> None:
    site.head = "\ufeff".encode().decode("iso-8859-1")
    (found,) = (one for one in site.findings() if one.severity == "problem")
    assert found.key == next(iter(site.values))
    assert "byte order mark" in found.seen

    site.head += "# a comment, which it may spoil\n"
    assert site.findings() == []


@pytest.mark.parametrize(
    ("content", "words"),
    [("model_store=/x\n".encode("utf-16"), "it is UTF-16"), ("# für uns\n".encode("iso-8859-1"), "it is not UTF-8")],
)
def test_a_file_in_another_encoding(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "config.properties"
    file.write_bytes(content)
    assert words in find_all(gather(file, {}, MACHINE))[0].describe()


def test_a_store_with_letters_is_found_as_torchserve_finds_it(site: Site) -> None:
    store = site.store.rename(site.store.parent / "modèles")
    site.values |= {"model_store": None, "metrics_config": None, "model_metrics_auto_detect": "true"}
    site.tail = f"model_store={store}\n".encode().decode("iso-8859-1")
    assert site.findings() == []


def test_variables_that_are_not_set_are_one_finding(site: Site) -> None:
    site.values |= {"default_response_timeout": "$$SECONDS$$", "inference_address": "http://127.0.0.1:$$PORT$$"}
    (found,) = site.findings()
    assert found.key == "inference_address, default_response_timeout"
    assert "SECONDS and PORT" in found.why or "PORT and SECONDS" in found.why

    site.environ = {"SECONDS": "60", "PORT": "8080"}
    assert site.findings() == []


def test_no_more_is_said_than_a_reader_reads(site: Site) -> None:
    site.tail = "".join(f"key_{number}=1\n" for number in range(5000))
    assert [one.seen for one in site.findings()][-1] == "no key of TorchServe 0.12"
    assert site.findings()[0].seen.startswith("more than")
