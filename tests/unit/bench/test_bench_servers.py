from __future__ import annotations

import io
import os
import signal
import sys
import tarfile
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from bench.compare import main
from bench.material import Rated, parse_rated, read_rated
from bench.process import BenchError, Child, run, tree
from bench.server import clean_env
from bench.stock import ALL_SETTINGS, parse_settings

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def wait_for_text(path: Path) -> str:
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        if path.is_file() and path.read_text().endswith("\n"):
            return path.read_text()
        time.sleep(0.05)
    raise AssertionError(f"nothing in {path}")


def alive(pid: int) -> bool:
    return any(stat.pid == pid for stat in tree(pid))


def test_a_child_that_ignores_sigterm_is_ended_with_its_children_of_other_sessions(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Child([sys.executable, "-c", STUBBORN], log=log, env=os.environ, cwd=tmp_path, stop_seconds=0.3) as child:
        grandchild = int(wait_for_text(log))
        assert alive(grandchild)
        assert child.cpu_seconds() >= 0.0
    assert child.exit_code == -signal.SIGKILL
    deadline = time.monotonic() + 5.0
    while alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(grandchild)


def test_run_returns_the_output(tmp_path: Path) -> None:
    printed = run([sys.executable, "-c", "print('hi')"], log=tmp_path / "log", env={}, cwd=tmp_path, timeout_seconds=60)
    assert printed == "hi\n"


def test_run_says_what_failed_and_shows_its_last_lines(tmp_path: Path) -> None:
    program = "import sys; print('the reason'); sys.exit(3)"
    with pytest.raises(BenchError, match=r"exit code 3 (.|\n)*the reason"):
        run([sys.executable, "-c", program], log=tmp_path / "log", env={}, cwd=tmp_path, timeout_seconds=60)


def test_run_takes_the_exit_codes_that_are_good(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('none'); sys.exit(1)"]
    printed = run(command, log=tmp_path / "log", env={}, cwd=tmp_path, timeout_seconds=60, good_codes=(0, 1))
    assert printed == "none\n"


def test_run_is_bounded_in_time(tmp_path: Path) -> None:
    program = "import time; time.sleep(60)"
    with pytest.raises(BenchError, match="still runs"):
        run([sys.executable, "-c", program], log=tmp_path / "log", env={}, cwd=tmp_path, timeout_seconds=0.3)


def test_the_environment_of_a_server_has_no_thread_limits_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    env = clean_env(tmp_path, JAVA_HOME="java")
    assert "OMP_NUM_THREADS" not in env
    assert (env["TEMP"], env["JAVA_HOME"]) == (str(tmp_path / "tmp"), "java")


def test_stock_settings_are_read_by_the_names_they_print() -> None:
    assert [parse_settings(str(settings)) for settings in ALL_SETTINGS] == list(ALL_SETTINGS)
    with pytest.raises(BenchError, match="w1b1t1"):
        parse_settings("w3b3t3")


def test_rated_sentences_have_a_rating_and_the_whole_third_column() -> None:
    lines = "1\t-0.5\tNot good.\r\n2_1\t1.0\tGood\x85 really\tgood\r\n\r\nbroken\n3\tno rating\ttext\n4\tnan\ttext\n"
    assert parse_rated(lines) == [Rated("Not good.", -0.5), Rated("Good\x85 really\tgood", 1.0)]


def test_sentences_are_read_from_the_archive_in_the_archive(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        for name in ("tweets", "movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets"):
            add(archive, f"hutto_ICWSM_2014/{name}_GroundTruth.txt", f"1\t0.5\tof {name}\r\n".encode())
    sdist = tmp_path / "sdist.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        add(archive, "v-1/additional_resources/hutto_ICWSM_2014.tar.gz", inner.getvalue())
    assert read_rated(sdist)[0] == Rated("of tweets", 0.5)
    assert len(read_rated(sdist)) == 4


def test_an_archive_without_sentences_is_refused(tmp_path: Path) -> None:
    sdist = tmp_path / "sdist.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        add(archive, "v-1/README", b"")
    with pytest.raises(BenchError, match="--payloads"):
        read_rated(sdist)


def test_the_checkout_of_pytorch_serve_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main([])
    assert raised.value.code == 2
    assert "--pytorch-serve" in capsys.readouterr().err


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
