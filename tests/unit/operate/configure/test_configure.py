from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.operate.configure.written import configured, read
from ts_handlers.cli import main
from ts_handlers.machine import cpu_budget
from ts_handlers.operate.configure import command as configure
from ts_handlers.operate.metrics_config import metrics_yaml
from ts_handlers.operate.torchserve.config import read_config
from ts_handlers.operate.torchserve.models import served_models, worker_numbers


def test_it_writes_what_the_server_reads(write_mar: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    store = write_mar("mini", "1.0").parent
    values = configured(store, "--cpus", "3.5", "--batch-size", "4")

    assert json.loads(values["models"])["mini"]["1.0"] == {
        "defaultVersion": True,
        "marName": "mini-1.0.mar",
        "minWorkers": 3,
        "maxWorkers": 3,
        "batchSize": 4,
        "maxBatchDelay": 1,
        "responseTimeout": 120,
        "startupTimeout": 300,
    }
    assert values["load_models"] == "mini-1.0.mar"
    assert values["model_store"] == str(store)
    assert values["metrics_config"] == str(store / "metrics.yaml")
    assert (store / "metrics.yaml").read_text() == metrics_yaml()
    output = capsys.readouterr().out
    assert "budget: 3.5 CPUs (given)" in output
    assert f"next: ts-handlers serve {store}" in output


def test_it_is_closed_to_the_outside(write_mar: Callable[..., Path]) -> None:
    values = configured(write_mar().parent)

    assert {key: values[key] for key in values if key.endswith("_address")} == {
        "inference_address": "http://127.0.0.1:8080",
        "management_address": "http://127.0.0.1:8081",
        "metrics_address": "http://127.0.0.1:8082",
        "grpc_inference_address": "127.0.0.1",
        "grpc_management_address": "127.0.0.1",
    }
    for key in ("disable_token_authorization", "enable_model_api", "install_py_dep_per_model", "enable_envvars_config"):
        assert values[key] == "false"
    assert values["allowed_urls"] == "(?!)"


def test_every_number_says_why(write_mar: Callable[..., Path]) -> None:
    store = write_mar().parent
    configured(store)
    blocks = (store / "config.properties").read_text().split("\n\n")

    assert [block for block in blocks if not block.startswith("#")] == []


def test_ports_hosts_and_tokens_can_be_chosen(write_mar: Callable[..., Path]) -> None:
    options = "--inference-host 10.1.2.3 --inference-port 18080 --grpc-inference-port 17070 --initial-worker-port 9500"
    values = configured(write_mar().parent, *options.split(), "--disable-token-authorization")

    assert values["inference_address"] == "http://10.1.2.3:18080"
    assert values["grpc_inference_address"] == "10.1.2.3"
    assert (values["grpc_inference_port"], values["initial_worker_port"]) == ("17070", "9500")
    assert values.items() >= {"disable_token_authorization": "true"}.items()


def test_gpus_are_passed_on(write_mar: Callable[..., Path]) -> None:
    assert configured(write_mar().parent, "--gpus", "2")["number_of_gpu"] == "2"


def test_it_can_write_elsewhere(
    write_mar: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_mar().parent
    output = tmp_path / "other" / "server.properties"
    output.parent.mkdir()

    assert main(["configure", str(store), "--output", str(output)]) == 0
    assert read(output)["metrics_config"] == str(output.parent / "metrics.yaml")
    assert not (store / "config.properties").exists()
    assert f"--config {output}" in capsys.readouterr().out


def test_its_own_file_is_replaced_and_a_foreign_one_is_not(
    write_mar: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_mar().parent
    configured(store)
    configured(store, "--workers", "5")
    (store / "config.properties").write_text("by=hand\n")

    assert main(["configure", str(store)]) == 2
    assert "was not written by this command" in capsys.readouterr().err
    assert configured(store, "--force")["enable_model_api"] == "false"


def test_a_place_that_cannot_be_written_is_an_error(
    write_mar: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["configure", str(write_mar().parent), "--output", str(tmp_path / "no" / "x.properties")]) == 2
    assert "choose another place with --output" in capsys.readouterr().err


def test_what_a_yaml_decides_is_said(write_mar: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    configured(write_mar(config="minWorkers: 4\nmaxWorkers: 4\n").parent, "--cpus", "2")

    output = capsys.readouterr().out
    assert "decided by its model-config.yaml" in output
    assert "4 workers in all (more than the 2 CPUs)" in output


def test_the_server_reads_it_back(write_mar: Callable[..., Path]) -> None:
    write_mar("b")
    store = write_mar("a").parent
    configured(store, "--cpus", "3", "--inference-host", "0.0.0.0")
    config = read_config(store / "config.properties")

    assert [(model.name, model.workers) for model in served_models(config)] == [("a", 2), ("b", 1)]
    assert worker_numbers(config) == range(9000, 9003)
    assert config.inference.url == "http://127.0.0.1:8080"
    assert [address.port for address in config.addresses] == [8080, 8081, 8082, 7070, 7071]
    assert config.is_token_required
    assert "-XX:ActiveProcessorCount=3" in config.vmargs


def build_report(store: Path, name: str, **values: Any) -> None:
    content = {"name": name, "version": "1.0", "rss_mb": 300, "latency_ms": {"1x24": 20.0}, "weight": 1} | values
    (store / f"{name}.build.json").write_text(json.dumps(content))


def test_it_reads_the_build_reports_and_says_what_it_made_of_them(
    write_mar: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_mar("heavy")
    store = write_mar("light").parent
    build_report(store, "heavy", weight=3)
    build_report(store, "light")
    values = configured(store, "--cpus", "8", "--memory-mb", "4000")

    models = json.loads(values["models"])
    assert [models[name]["1.0"]["minWorkers"] for name in ("heavy", "light")] == [5, 2]
    text = (store / "config.properties").read_text()
    for word in ("Weights: heavy 1.0: 3, light 1.0: 1.", "The CPUs would take 8, the memory holds 7."):
        assert word in text
    output = capsys.readouterr().out
    assert "memory: 4000 MiB (given)" in output
    assert "The CPUs would take 8, the memory holds 7." in output


def test_a_memory_that_holds_nothing_is_an_error_with_the_numbers(
    write_mar: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_mar("mini").parent
    build_report(store, "mini", rss_mb=2000)

    assert main(["configure", str(store), "--memory-mb", "2000"]) == 2
    assert "1 x mini 1.0 need 2600 MiB" in capsys.readouterr().err
    assert not (store / "config.properties").exists()


def test_the_latency_profile_says_why(write_mar: Callable[..., Path]) -> None:
    store = write_mar("mini").parent
    build_report(store, "mini")
    values = configured(store, "--profile", "latency", "--cpus", "8")

    entry = json.loads(values["models"])["mini"]["1.0"]
    assert (entry["minWorkers"], entry["batchSize"], entry["maxBatchDelay"]) == (2, 1, 1)
    assert values["job_queue_size"] == "16"
    text = (store / "config.properties").read_text()
    assert "# Profile latency. Workers: 2 on 8 CPUs, 4 threads each." in text
    assert "a call takes 20 ms on one thread" in text


def test_the_launcher_is_off_unless_it_is_asked_for(write_mar: Callable[..., Path]) -> None:
    store = write_mar("mini").parent
    assert configured(store)["cpu_launcher_enable"] == "false"
    budget = cpu_budget()
    if budget.quota is None or budget.quota >= len(budget.affinity):
        values = configured(store, "--launcher", "--workers", "1")
        assert values["cpu_launcher_enable"] == "true"
        assert values["cpu_launcher_args"].startswith(f"--core-list {budget.affinity[0]}")


def test_more_workers_than_cpus_are_written_with_a_warning(
    write_mar: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    configured(write_mar("mini").parent, "--cpus", "1.5", "--workers", "3")

    assert "warning: models: 3 workers: there are 1.5 CPUs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--inference-port 8081", "more than one of the server's addresses"),
        ("--initial-worker-port 65530 --workers 9", "no room for 9 workers"),
        ("--cpus 0", "CPU budget is 0"),
        ("--json", "--json is for --check"),
        ("--cpus 64 --launcher", "CPU numbers of another machine cannot be known"),
    ],
)
def test_what_cannot_work_is_refused(
    write_mar: Callable[..., Path], options: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["configure", str(write_mar().parent), *options.split()]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        "--workers 1000000000",
        "--batch-size 10000000",
        "--max-batch-delay-ms 100000000",
        "--memory-mb 0",
        "--memory-mb 99999999999999999999999999",
        "--profile fast",
        "--workers 0",
        "--gpus -1",
        "--batch-size x",
        "--inference-port 70000",
        "--inference-host ::1",
        "--cpus many",
    ],
)
def test_an_option_that_cannot_be_read_is_refused(write_mar: Callable[..., Path], options: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["configure", str(write_mar().parent), *options.split()])


def test_its_options_can_be_read_without_a_folder() -> None:
    parser = argparse.ArgumentParser()
    configure.add_arguments(parser)

    assert parser.parse_args(["store"]).profile == "throughput"
