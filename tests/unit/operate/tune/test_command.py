"""What the operator can get wrong, through the command line; nothing here starts a server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ts_handlers.cli import main
from ts_handlers.cpu import cpu_budget
from ts_handlers.operate.load.payloads import Payload
from ts_handlers.operate.memory import MIB, worker_mb
from ts_handlers.operate.torchserve.archives import read_archive
from ts_handlers.operate.tune.folders import read_prior, write_output
from ts_handlers.operate.tune.objective import Objective
from ts_handlers.operate.tune.results import Results
from ts_handlers.operate.tune.space import Setting
from ts_handlers.operate.tune.subject import make_subject
from ts_handlers.operate.tune.trial import Load, read_decision, write_config

REPORT = '{"name": "echo", "version": "1.0", "rss_mb": 300}'


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
    assert "--minutes 0.5 is too short for two settings and their comparison; give 1 or more" in refused(
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
    assert refused(archive, texts, "--rate", "0.5", "--trial-s", "200").endswith("give a higher --rate, or none")
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
    load = Load([Payload(b"other", "text/plain")], 16, None, 2.0)
    subject = make_subject(archive, load, cpu_budget())
    Results(output / "results.json", subject, Setting(99, 1, 8, 1), Objective()).write()
    (output / f".report.html.{'0' * 16}.part").touch()  # what a tune that was killed leaves is its own
    said = refused(archive.path, texts)
    assert "is of something else (the payloads, payloads (1.0 there), configure's default)" in said
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


def test_the_default_is_what_configure_writes_and_the_threads_its_workers_take(write_mar: Callable[..., Path]) -> None:
    cpus = max(1, int(cpu_budget().cpus))
    archive = read_archive(write_mar())
    assert read_prior(archive, cpu_budget()).default == Setting(cpus, 1, 8, 1)
    fixed = read_archive(write_mar("fixed", config="minWorkers: 1\nmaxWorkers: 1\nbatchSize: 3\nmaxBatchDelay: 7"))
    (archive.path).unlink()
    assert read_prior(fixed, cpu_budget()).default == Setting(1, cpus, 3, 7)
    threads = read_archive(write_mar("threads", config="handler: {cpu: {threads: 5}}"))
    assert read_prior(threads, cpu_budget()).default.threads == 5


def test_a_workers_memory_is_what_its_build_measured_or_a_guess(write_mar: Callable[..., Path]) -> None:
    archive = read_archive(write_mar())
    assert read_prior(archive, cpu_budget()).worker_bytes > 400 * MIB
    archive.path.with_suffix(".build.json").write_text(REPORT, encoding="utf-8")
    assert read_prior(archive, cpu_budget()).worker_bytes == worker_mb(300) * MIB


def test_what_overrides_a_setting_is_an_error(write_mar: Callable[..., Path], tmp_path: Path) -> None:
    store = write_mar(config="batchSize: 3").parent
    with pytest.raises(RuntimeError, match=r"configure wrote 2 workers, batches of 3 .* model-config.yaml"):
        write_config(store, Setting(2, 1, 8, 1), tmp_path / "config.properties")


def test_the_tuned_folder_holds_what_was_chosen(write_mar: Callable[..., Path], tmp_path: Path) -> None:
    archive = read_archive(write_mar(config="batchSize: 3\nhandler: {task: fill}"))
    report = archive.path.with_suffix(".build.json")
    report.write_text(REPORT, encoding="utf-8")
    output = tmp_path / "out"
    output.mkdir()
    write_output(output, archive, Setting(1, 64, 16, 5), cpu_budget())
    assert read_decision(output / "config.properties") == (1, 16, 5)
    tuned = read_archive(output / archive.path.name)
    assert tuned.settings == {"handler": {"task": "fill", "cpu": {"threads": 64}}}
    assert (output / report.name).read_text(encoding="utf-8") == REPORT
    assert (output / "metrics.yaml").is_file()
