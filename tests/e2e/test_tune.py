"""`ts-handlers tune` as its users run it, with real servers; as few and as short as it goes."""

from __future__ import annotations

import contextlib
import io
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

from tests.e2e.archives import CONFIG, write_archive
from tests.stand_in import torch_stand_in
from ts_handlers.cli import main
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.load.generator import LoadSpec, run_load
from ts_handlers.operate.load.payloads import read_payloads
from ts_handlers.operate.torchserve.process.ports import free_port_options
from ts_handlers.operate.tune.archive import read_decision, write_config
from ts_handlers.operate.tune.results import Setting

pytestmark = pytest.mark.e2e

QUICK = ("--minutes", "10", "--trial-s", "0.4", "--warmup-s", "0.1", "--concurrency", "4")
LEFT_BY_A_KILLED_ONE = f".report.html.{'0' * 16}.part"

ECHO = """
def handle(rows, context):
    return None if rows is None else ["ok" for _ in rows]
"""
"""A handler that costs nothing: what is tested is how servers are started, loaded and stopped."""

MOODY = """
import os

def handle(rows, context):
    if context.system_properties["batch_size"] == 4:
        raise RuntimeError("four are no batch")
    if rows is None:
        return None
    if os.environ["TS_HANDLERS_WORKERS"] == "4":
        raise ValueError("four of us are too many")
    return ["ok" for _ in rows]
"""
"""A handler that does not load with batches of four, and fails among four workers."""


@dataclass(frozen=True)
class Stage:
    """What was there after one run of the command.

    Attributes:
        out: What it printed.
        results: What its results.json holds.
        names: The files of the folder.
    """

    out: str
    results: Any
    names: set[str]


@dataclass(frozen=True)
class Tuned:
    """A search that was interrupted twice, and then went through.

    Attributes:
        words: The command.
        output: The tuned folder.
        archive: The archive it was given.
        texts: The payloads.
        ctrl_c: After Ctrl-C, early in the second trial.
        terminated: After SIGTERM, early in the third trial.
        done: In the end.
        code: The last exit code.
    """

    words: list[str]
    output: Path
    archive: Path
    texts: Path
    ctrl_c: Stage
    terminated: Stage
    done: Stage
    code: int


@pytest.fixture(scope="module", autouse=True)
def two_cpus() -> Iterator[None]:
    """Two CPUs at most for these servers, so that the settings are the same everywhere."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:2])
    if len(before) < 2:
        pytest.skip("these settings are those of two CPUs")
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="module", autouse=True)
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the workers of these servers start without torch, which their handlers do not need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", torch_stand_in(tmp_path_factory.mktemp("stand-in")))
        yield


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
def echo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with a build report, whose handler takes its threads from `handler.cpu` as ours do."""
    store = tmp_path_factory.mktemp("echo")
    report = {"name": "echo", "version": "1.0", "rss_mb": 200}
    (store / "echo.build.json").write_text(json.dumps(report), encoding="utf-8")
    return write_archive(store / "echo.mar", {"own.py": ECHO, CONFIG: "handler: {}\n"}, handler="own.py:handle")


@pytest.fixture
def moody(tmp_path: Path) -> Path:
    """An archive whose own file would override every setting."""
    config = "minWorkers: 2\nmaxWorkers: 2\nbatchSize: 8\nmaxBatchDelay: 1\n"
    return write_archive(tmp_path / "moody.mar", {"own.py": MOODY, CONFIG: config}, handler="own.py:handle")


def words_of(archive: Path, texts: Path, output: Path, *options: object) -> list[str]:
    words = ["tune", archive, "--payloads", texts, "--output", output, *QUICK, *options]
    return [str(word) for word in words]


def results_of(output: Path) -> Any:
    return json.loads((output / "results.json").read_text(encoding="utf-8"))


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
        assert line.startswith("trial "), line
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


def interrupt(words: Sequence[str], scratch: Path, number: signal.Signals, *, is_group: bool = False) -> Stage:
    """Run the command until one more trial has ended and the next server is up, then send it a signal."""
    running = Running(words, scratch)
    try:
        running.wait_for_trial()
        out = running.end(number, is_group=is_group)
    finally:
        if running.process.poll() is None:
            os.killpg(running.process.pid, signal.SIGKILL)
            running.process.communicate()
    assert list(scratch.iterdir()) == []
    return stage_of(out, Path(words[words.index("--output") + 1]))


def stage_of(out: str, output: Path) -> Stage:
    return Stage(out, results_of(output), {path.name for path in output.iterdir()})


@pytest.fixture(scope="module")
def tuned(echo: Path, texts: Path, scratch: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """A search of two settings, by the same command three times."""
    output = tmp_path_factory.mktemp("tuned") / "out"
    words = words_of(echo, texts, output, "--max-settings", 2)
    ctrl_c = interrupt(words, scratch, signal.SIGINT, is_group=True)  # a terminal's Ctrl-C reaches the server, too
    (output / LEFT_BY_A_KILLED_ONE).touch()
    terminated = interrupt(words, scratch, signal.SIGTERM)
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(words)
    assert "failed" not in err.getvalue(), err.getvalue()
    assert list(scratch.iterdir()) == []
    return Tuned(words, output, echo, texts, ctrl_c, terminated, stage_of(out.getvalue(), output), code)


def test_ctrl_c_keeps_what_is_known(tuned: Tuned) -> None:
    assert "interrupted; 1 trial kept in" in tuned.ctrl_c.out
    assert tuned.ctrl_c.results["outcome"] is None
    assert len(tuned.ctrl_c.results["trials"]) == 1
    assert tuned.ctrl_c.names == {"results.json", "report.html"}


def test_the_same_command_goes_on(tuned: Tuned) -> None:
    known = tuned.ctrl_c.results["trials"]
    assert "going on from 1 trial in" in tuned.terminated.out
    further = tuned.terminated.results["trials"]
    assert further[:1] == known
    assert len(further) == 2
    assert further[0]["setting"] != further[1]["setting"]
    assert tuned.terminated.results["outcome"] is None
    assert tuned.terminated.names == {"results.json", "report.html"}  # what a killed one had left is gone
    assert "going on from 2 trials in" in tuned.done.out
    assert tuned.done.results["trials"][:2] == further


def test_it_compares_the_best_with_the_default_and_says_both_figures(tuned: Tuned) -> None:
    results = tuned.done.results
    assert tuned.code == 0
    assert [trial["setting"]["workers"] for trial in results["trials"]][:4] == [2, 4, 2, 4]
    assert all(trial["measured"]["num_ok"] > 0 for trial in results["trials"])
    lines = tuned.done.out.splitlines()
    assert f"Chosen: {Setting(**results['outcome']['choice']).describe()}." in lines
    assert sum(" requests/s, p99 " in line for line in lines) == 2
    assert lines[-1] == f"next: ts-handlers serve {tuned.output}"


def test_the_folder_can_be_served_as_it_is(tuned: Tuned, scratch: Path, tmp_path: Path) -> None:
    names = {"config.properties", "metrics.yaml", "report.html", "results.json", "echo.build.json", "echo.mar"}
    assert tuned.done.names == names
    choice = Setting(**tuned.done.results["outcome"]["choice"])
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
        url = f"{server.inference_url}/predictions/echo"
        headers = {"Authorization": f"Bearer {server.token()}"}
        payloads = read_payloads(tuned.texts)
        load = run_load(LoadSpec(url, payloads, concurrency=2, duration_s=0.5, warmup_s=0, headers=headers))
    assert load.errors == {}
    assert load.num_ok > 0


def test_the_same_command_measures_nothing_again(tuned: Tuned, capsys: pytest.CaptureFixture[str]) -> None:
    before = (tuned.output / "results.json").read_bytes()
    assert main(tuned.words) == 0
    assert "trial" not in capsys.readouterr().err
    assert (tuned.output / "results.json").read_bytes() == before


def test_other_payloads_are_another_search(tuned: Tuned, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.txt"
    other.write_text("other\n", encoding="utf-8")
    assert main(words_of(tuned.archive, other, tuned.output)) == 2
    assert "is of something else: payloads (" in capsys.readouterr().err


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
    assert "four are no batch" in reasons.pop((2, 4))
    assert reasons.pop((4, 8)).startswith("100% of the requests failed")
    assert reasons == {(2, 8): None}
    out = capsys.readouterr().out
    assert "No other setting was measured 2 times" in out
    assert "No setting meets the objective" in out
    assert list(scratch.iterdir()) == []
    with zipfile.ZipFile(output / "moody.mar") as archive:
        assert "minWorkers" not in archive.read("model-config.yaml").decode()
