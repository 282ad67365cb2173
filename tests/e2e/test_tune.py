"""`ts-handlers tune` as its users run it, with real servers; as few and as short as it goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.browser import OpenPage, open_chromium
from tests.model_dirs import ModelDirs
from ts_handlers.cli import main
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.load.generator import LoadSpec, run_load
from ts_handlers.operate.load.payloads import read_payloads
from ts_handlers.operate.ports import free_port_options
from ts_handlers.operate.tune.results import read_results
from ts_handlers.operate.tune.space import Setting
from ts_handlers.operate.tune.trial import read_decision, write_config

pytestmark = pytest.mark.e2e

DEFAULT = Setting(2, 1, 8, 1)
QUICK = ("--minutes", "10", "--trial-s", "1", "--warmup-s", "0.2", "--concurrency", "4")

MOODY = """
import os

def handle(rows, context):
    if os.environ["TS_HANDLERS_WORKERS"] == "4":
        raise RuntimeError("no room for four of us")
    if rows is None:
        return None
    if context.system_properties["batch_size"] == 4:
        raise ValueError("four is too many")
    return ["ok" for _ in rows]
"""
"""A handler that does not load among four workers, and fails with batches of four."""


@dataclass(frozen=True)
class Tuned:
    """A search that went through.

    Attributes:
        code: Its exit code.
        words: The command.
        output: The tuned folder.
        archive: The archive it was given.
        texts: The payloads.
        out: What it printed.
    """

    code: int
    words: list[str]
    output: Path
    archive: Path
    texts: Path
    out: str


@pytest.fixture(scope="module", autouse=True)
def two_cpus() -> Iterator[None]:
    """Two CPUs at most for these servers, so that the settings are the same everywhere."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:2])
    if len(before) < 2:
        pytest.skip("these settings are those of two CPUs")
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """Where temporary files go, which are all gone in the end; short, because worker sockets are in it."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="tt-", dir="/tmp") as folder:
        tempfile.tempdir = folder
        yield Path(folder)
        tempfile.tempdir = before
        assert list(Path(folder).iterdir()) == []


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("I love this\nthis is rather dull\nno\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tiny(model_dirs: ModelDirs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real archive, small."""
    store = tmp_path_factory.mktemp("tiny")
    words = ["build", model_dirs.checkpoint("tiny-distilbert"), "--task", "text-classification", "--name", "tiny"]
    assert main([str(word) for word in [*words, "--output", store]]) == 0
    return store / "tiny.mar"


@pytest.fixture
def moody(tmp_path: Path) -> Path:
    """An archive whose own file would override every setting."""
    model = {
        "modelName": "moody",
        "modelVersion": "1.0",
        "handler": "moody.py:handle",
        "configFile": "model-config.yaml",
    }
    path = tmp_path / "moody.mar"
    with zipfile.ZipFile(path, "w") as archive:
        manifest = {"runtime": "python", "model": model, "archiverVersion": "0.12.0"}
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("moody.py", MOODY)
        archive.writestr("model-config.yaml", "minWorkers: 2\nmaxWorkers: 2\nbatchSize: 8\nmaxBatchDelay: 1\n")
    return path


def words_of(archive: Path, texts: Path, output: Path, *options: object) -> list[str]:
    words = ["tune", archive, "--payloads", texts, "--output", output, *QUICK, *options]
    return [str(word) for word in words]


def results_of(output: Path) -> Any:
    return json.loads((output / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tuned(tiny: Path, texts: Path, scratch: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """A search of two settings, in a process of its own."""
    output = tmp_path_factory.mktemp("tuned") / "out"
    words = words_of(tiny, texts, output, "--max-settings", 2)
    ended = subprocess.run(
        [sys.executable, "-m", "ts_handlers.cli", *words],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "TMPDIR": str(scratch)},
        check=False,
    )
    assert "failed" not in ended.stderr, ended.stderr
    assert list(scratch.iterdir()) == []
    return Tuned(ended.returncode, words, output, tiny, texts, ended.stdout)


def test_it_compares_the_best_with_the_default_and_says_both_figures(tuned: Tuned) -> None:
    results = read_results(tuned.output / "results.json")
    assert tuned.code == 0
    assert results.default == DEFAULT
    assert [trial.rung for trial in results.trials] == [0, 0, None, None, None, None]
    assert results.outcome is not None
    assert results.outcome.verdict is not None
    assert all(trial.measured is not None and trial.measured.num_ok > 0 for trial in results.trials)
    lines = tuned.out.splitlines()
    assert f"Chosen: {results.outcome.choice.describe()}." in lines
    assert sum("requests/s (" in line for line in lines) == 2
    assert lines[-1] == f"next: ts-handlers serve {tuned.output}"


def test_the_folder_can_be_served_as_it_is(tuned: Tuned, scratch: Path, tmp_path: Path) -> None:
    names = {"config.properties", "metrics.yaml", "report.html", "results.json", "tiny.build.json", "tiny.mar"}
    assert {path.name for path in tuned.output.iterdir()} == names
    choice = Setting(**results_of(tuned.output)["outcome"]["choice"])
    chosen = (choice.workers, choice.batch_size, choice.max_batch_delay_ms)
    assert read_decision(tuned.output / "config.properties") == chosen
    config = tmp_path / "config.properties"
    write_config(tuned.output, choice, config, free_port_options())  # other ports: 8080 may be taken here
    with (
        tempfile.TemporaryDirectory() as temporary,
        BackgroundServer(
            tuned.output, config=config, run_dir=tmp_path / "run", environ={**os.environ, "TEMP": temporary}
        ) as server,
    ):
        url = f"{server.inference_url}/predictions/tiny"
        headers = {"Authorization": f"Bearer {server.token()}"}
        payloads = read_payloads(tuned.texts)
        load = run_load(LoadSpec(url, payloads, concurrency=2, duration_s=0.5, warmup_s=0, headers=headers))
    assert load.errors == {}
    assert load.num_ok > 0


def test_the_same_command_measures_nothing_again(tuned: Tuned, capsys: pytest.CaptureFixture[str]) -> None:
    before = (tuned.output / "results.json").read_bytes()
    assert main(tuned.words) == 0
    assert "nothing is measured again" in capsys.readouterr().out
    assert (tuned.output / "results.json").read_bytes() == before


def test_other_payloads_are_another_search(tuned: Tuned, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.txt"
    other.write_text("other\n", encoding="utf-8")
    assert main(words_of(tuned.archive, other, tuned.output)) == 2
    assert "is of something else (the payloads" in capsys.readouterr().err


def test_its_report_is_drawn_by_a_browser(tuned: Tuned) -> None:
    with open_chromium() as chromium:
        opened = OpenPage(chromium.new_page(), tuned.output / "report.html")
        assert opened.page.locator("#chart path.point").count() == 2
        opened.page.locator("#trials th button").nth(opened.button("requests/s")).click()
        figures = [float(text) for text in opened.column(opened.button("requests/s"))]
        assert len(figures) == 6
        assert figures == sorted(figures)
        assert opened.said == []
        assert len(opened.requests) == 1


def test_settings_that_fail_are_recorded_and_a_bound_nobody_meets_is_said(
    moody: Path, texts: Path, scratch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    words = words_of(moody, texts, output, "--max-settings", 3, "--slo-p99-ms", "0.001")
    assert main(words) == 1
    reasons = {
        (trial["setting"]["workers"], trial["setting"]["batch_size"]): trial["reason"]
        for trial in results_of(output)["trials"]
    }
    assert "no room for four of us" in reasons.pop((4, 8))
    assert reasons.pop((2, 4)).startswith("100% of the requests failed")
    assert reasons == {(2, 8): None}
    out = capsys.readouterr().out
    assert "No other setting could be measured to the end" in out
    assert "No setting meets the objective" in out
    assert list(scratch.iterdir()) == []
    with zipfile.ZipFile(output / "moody.mar") as archive:
        assert "minWorkers" not in archive.read("model-config.yaml").decode()


class Running:
    """`ts-handlers tune` in a session of its own, as a terminal starts it."""

    def __init__(self, words: Sequence[str], scratch: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ts_handlers.cli", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(scratch)},
        )

    def wait_for_trial(self) -> None:
        """Wait until one more trial has ended and the next server is up."""
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        assert line.startswith("round 1: "), line
        deadline = time.monotonic() + 60
        while not any("java" in child.name() for child in self.children()):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number: signal.Signals, *, is_group: bool) -> str:
        """Send a signal, and check that nothing is left; return what was printed."""
        children = self.children()
        (os.killpg if is_group else os.kill)(self.process.pid, number)
        out, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 130
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []
        return out


def test_ctrl_c_keeps_what_is_known_and_the_same_command_goes_on(
    tiny: Path, texts: Path, scratch: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    words = words_of(tiny, texts, output, "--max-settings", 3)
    first = Running(words, scratch)
    first.wait_for_trial()
    out = first.end(signal.SIGINT, is_group=True)  # a terminal's Ctrl-C reaches the server, too
    assert "interrupted; 1 trial kept in" in out
    assert list(scratch.iterdir()) == []
    known = read_results(output / "results.json")
    assert known.outcome is None
    assert {path.name for path in output.iterdir()} == {"results.json", "report.html"}

    second = Running(words, scratch)
    second.wait_for_trial()
    out = second.end(signal.SIGTERM, is_group=False)
    assert "going on from 1 trial in" in out
    assert list(scratch.iterdir()) == []
    further = read_results(output / "results.json")
    assert further.trials[0] == known.trials[0]
    assert len({trial.setting for trial in further.trials}) == 2
