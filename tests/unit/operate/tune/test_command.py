"""What the operator can get wrong, through the command line; nothing here starts a server."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ts_handlers.cli import main
from ts_handlers.machine import cpu_budget
from ts_handlers.operate.load.generator import LoadSpec
from ts_handlers.operate.load.payloads import Payload
from ts_handlers.operate.memory import MIB, worker_mb
from ts_handlers.operate.torchserve.archives import read_archive
from ts_handlers.operate.tune.archive import (
    fixed_threads,
    has_threads,
    place_archive,
    read_decision,
    read_default,
    write_config,
    write_output,
)
from ts_handlers.operate.tune.results import Objective, Results, Setting, read_conditions

REPORT = '{"name": "echo", "version": "1.0", "rss_mb": 300}'
SETTING = Setting(1, 64, 16, 5)
FIXED = """
minWorkers: 1
maxWorkers: 1
batchSize: 4
maxBatchDelay: 50
responseTimeout: 60
handler:
  task: text-classification
  cpu: {threads: 3, placement: none}
"""


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("a text\nanother\n", encoding="utf-8")
    return path


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Run tune on something wrong and return the one line it says."""

    def run(archive: Path, texts: Path, *options: object) -> str:
        words = ["tune", archive, "--payloads", texts, "--output", tmp_path / "out", *options]
        assert main([str(word) for word in words]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        return lines[0]

    return run


def test_no_archive(refused: Callable[..., str], tmp_path: Path, texts: Path) -> None:
    assert "there is no file" in refused(tmp_path / "none.mar", texts)
    assert "is no .mar file" in refused(texts, texts)
    fake = tmp_path / "fake.mar"
    fake.write_text("no zip", encoding="utf-8")
    assert "not a readable zip file" in refused(fake, texts)


def test_no_payloads(refused: Callable[..., str], write_mar: Callable[..., Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    assert "no payloads" in refused(write_mar(), empty)
    assert "no payloads" in refused(write_mar(), tmp_path / "none.txt")


def test_too_little_time(refused: Callable[..., str], write_mar: Callable[..., Path], texts: Path) -> None:
    assert "--minutes 0.5 is too short to measure two settings twice; give 1 or more" in refused(
        write_mar(), texts, "--minutes", "0.5"
    )
    assert "--max-settings is 1" in refused(write_mar(), texts, "--max-settings", "1")


def test_a_rate_at_which_one_request_would_decide(
    refused: Callable[..., str], write_mar: Callable[..., Path], texts: Path
) -> None:
    archive = write_mar()
    said = refused(archive, texts, "--rate", "6")
    assert "at --rate 6 a trial of 5 s has fewer than 50 requests" in said
    assert said.endswith("give --trial-s 9 or more")
    too_short = refused(archive, texts, "--rate", "6", "--trial-s", "9", "--minutes", "0.5")
    assert "--minutes 0.5 is too short" in too_short  # the rate is high enough for trials of that length


def test_somebody_elses_folder(
    refused: Callable[..., str], write_mar: Callable[..., Path], tmp_path: Path, texts: Path
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "other.mar").touch()
    assert "holds what tune did not write (other.mar)" in refused(write_mar(), texts)
    (output / "other.mar").rename(output / "config.properties")  # a name of ours alone is no permission
    assert "holds what tune did not write (config.properties), which --force does not overwrite" in refused(
        write_mar(), texts, "--force"
    )
    (output / "config.properties").unlink()
    output.rmdir()
    output.touch()
    assert "is no folder" in refused(write_mar(), texts)


def test_the_archive_is_not_overwritten(
    refused: Callable[..., str], write_mar: Callable[..., Path], tmp_path: Path, texts: Path
) -> None:
    inside = tmp_path / "out" / "echo.mar"
    inside.parent.mkdir()
    write_mar().rename(inside)
    (inside.parent / "results.json").touch()
    assert "lies in the output folder" in refused(inside, texts)


def test_results_of_something_else(
    refused: Callable[..., str], write_mar: Callable[..., Path], tmp_path: Path, texts: Path
) -> None:
    archive = read_archive(write_mar())
    output = tmp_path / "out"
    output.mkdir()
    load = LoadSpec("http://127.0.0.1/x", [Payload(b"other", "text/plain")], duration_s=5.0, warmup_s=2.0)
    conditions = {**read_conditions(archive, load, cpu_budget()), "configure's default": "none"}
    Results(output / "results.json", conditions, SETTING, Objective()).write()
    (output / f".report.html.{'0' * 16}.part").touch()  # what a tune that was killed leaves is its own
    said = refused(archive.path, texts)
    assert "is of something else: payloads (1, SHA-256 " in said
    assert "configure's default (none there)" in said
    assert "--force" in said


def test_the_help_says_what_force_leaves_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["tune", "--help"])
    assert "files that tune did not write are not overwritten" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--minutes", "0", "not a number above 0"),
        ("--rate", "-1", "not a number, 0 or more"),
        ("--slo-p99-ms", "fast", "not a number, 0 or more"),
        ("--warmup-s", "inf", "not a number, 0 or more"),
        ("--concurrency", "0", "not a whole number"),
        ("--max-settings", "2.5", "not a whole number"),
    ],
)
def test_numbers_that_are_none(capsys: pytest.CaptureFixture[str], option: str, value: str, said: str) -> None:
    with pytest.raises(SystemExit):
        main(["tune", "x.mar", "--payloads", "x", "--output", "x", option, value])
    assert said in capsys.readouterr().err


def config_of(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        return yaml.safe_load(archive.read("model-config.yaml"))


def test_the_default_is_what_configure_writes_and_the_threads_its_workers_take(write_mar: Callable[..., Path]) -> None:
    cpus = max(1, int(cpu_budget().cpus))
    archive = read_archive(write_mar())
    assert read_default(archive, cpu_budget())[0] == Setting(cpus, 1, 8, 1)
    fixed = read_archive(write_mar("fixed", config="minWorkers: 1\nmaxWorkers: 1\nbatchSize: 3\nmaxBatchDelay: 7"))
    (archive.path).unlink()
    assert read_default(fixed, cpu_budget())[0] == Setting(1, cpus, 3, 7)
    threads = read_archive(write_mar("threads", config="handler: {cpu: {threads: 5}}"))
    assert read_default(threads, cpu_budget())[0].threads == 5


def test_a_workers_memory_is_what_its_build_measured_or_a_guess(write_mar: Callable[..., Path]) -> None:
    archive = read_archive(write_mar())
    assert read_default(archive, cpu_budget())[1] > 400 * MIB
    archive.path.with_suffix(".build.json").write_text(REPORT, encoding="utf-8")
    assert read_default(archive, cpu_budget())[1] == worker_mb(300) * MIB


def test_what_overrides_a_setting_is_an_error(write_mar: Callable[..., Path], tmp_path: Path) -> None:
    store = write_mar(config="batchSize: 3").parent
    with pytest.raises(RuntimeError, match=r"configure wrote 2 workers, batches of 3 .* model-config.yaml"):
        write_config(store, Setting(2, 1, 8, 1), tmp_path / "config.properties")


def test_a_placed_archive_leaves_its_settings_to_config_properties_and_the_rest_stays(
    write_mar: Callable[..., Path], tmp_path: Path
) -> None:
    archive = read_archive(write_mar(config=FIXED, **{"weights.bin": "0" * 5000, "echo_handler.py": "x = 1"}))
    placed = place_archive(archive, tmp_path / "placed")
    assert config_of(placed.path) == {
        "responseTimeout": 60,
        "handler": {"task": "text-classification", "cpu": {"placement": "none"}},
    }
    with zipfile.ZipFile(archive.path) as old, zipfile.ZipFile(placed.path) as new:
        assert new.namelist() == old.namelist()
        assert new.read("weights.bin") == old.read("weights.bin")
        assert json.loads(new.read("MAR-INF/MANIFEST.json")) == json.loads(old.read("MAR-INF/MANIFEST.json"))
    assert archive.setting("minWorkers") == 1  # the original is as it was


@pytest.mark.parametrize("config", [None, "responseTimeout: 5", "handler: {task: fill}"])
def test_an_archive_that_needs_no_change_is_the_same_file(
    write_mar: Callable[..., Path], tmp_path: Path, config: str | None
) -> None:
    archive = read_archive(write_mar(config=config))
    assert place_archive(archive, tmp_path / "placed").path.readlink() == archive.path
    output = tmp_path / "out"
    output.mkdir()
    write_output(output, archive, Setting(1, max(1, int(cpu_budget().cpus)), 8, 1), cpu_budget())
    assert (output / archive.path.name).read_bytes() == archive.path.read_bytes()


@pytest.mark.parametrize(
    ("config", "is_ours", "threads"),
    [
        (None, False, None),
        ("batchSize: 1", False, None),
        ("handler: text", False, None),
        ("handler: {cpu: {threads: 2}, model: another}", False, None),  # somebody else's, with a `cpu` of its own
        ("handler: {}", True, None),
        ("handler: {cpu: null}", True, None),
        ("handler: {cpu: {threads: true}}", True, None),
        ("handler: {cpu: {threads: 2}}", True, 2),
    ],
)
def test_only_a_handler_of_ours_has_threads_to_set(
    write_mar: Callable[..., Path], tmp_path: Path, config: str | None, is_ours: bool, threads: int | None
) -> None:
    archive = read_archive(write_mar(config=config))
    assert has_threads(archive) is is_ours
    assert fixed_threads(archive) == threads
    write_output(tmp_path, archive, SETTING, cpu_budget())
    handler = (read_archive(tmp_path / archive.path.name).settings or {}).get("handler")
    assert handler == ({"cpu": {"threads": 64}} if is_ours else (archive.settings or {}).get("handler"))


def test_the_tuned_folder_holds_what_was_chosen(write_mar: Callable[..., Path], tmp_path: Path) -> None:
    archive = read_archive(write_mar(config="batchSize: 3\nhandler: {task: fill}"))
    report = archive.path.with_suffix(".build.json")
    report.write_text(REPORT, encoding="utf-8")
    output = tmp_path / "out"
    output.mkdir()
    write_output(output, archive, SETTING, cpu_budget())
    assert read_decision(output / "config.properties") == (1, 16, 5)
    assert read_archive(output / archive.path.name).settings == {"handler": {"task": "fill", "cpu": {"threads": 64}}}
    assert (output / report.name).read_text(encoding="utf-8") == REPORT
    assert (output / "metrics.yaml").is_file()


def test_a_folder_that_cannot_be_written_is_said(write_mar: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="cannot write"):
        write_output(tmp_path / "none", read_archive(write_mar()), SETTING, cpu_budget())
