"""`ts-handlers bench` as users call it, on a server in another process."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from ts_handlers.cli import main
from ts_handlers.operate import bench
from ts_handlers.operate.load.result import LoadResult
from ts_handlers.operate.torchserve.process.ports import free_ports

TOKEN = "abc"

SERVER = """
import sys
from aiohttp import web

num_seen = 0

async def answer(request):
    '''Asks for the token; without one says what TorchServe says.'''
    global num_seen
    num_seen += 1
    await request.read()
    if request.headers.get("Authorization") != "Bearer abc":
        return web.Response(status=400, text='{"type": "InvalidKeyException"}')
    return web.Response(text=request.headers["Content-Type"])

async def seen(request):
    return web.Response(text=str(num_seen))

app = web.Application()
app.router.add_post("/predictions/model", answer)
app.router.add_get("/seen", seen)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    (port,) = free_ports(1)
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(port)])
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}/predictions/model"
    finally:
        process.terminate()
        process.wait(30)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 30.0
    with contextlib.ExitStack() as stack:
        probe = stack.enter_context(socket.socket())
        while probe.connect_ex(("127.0.0.1", port)) != 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
            probe = stack.enter_context(socket.socket())


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.tsv"
    path.write_text("good\tone\nbad\ttwo\n")
    return path


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key_file.json"
    path.write_text(json.dumps({"inference": {"key": TOKEN, "expiration time": "soon"}}))
    return path


def options(texts: Path, *more: object) -> list[str]:
    return [str(word) for word in ("--payloads", texts, "--duration", 0.4, "--warmup", 0.1, *more)]


def test_it_says_rate_latencies_and_errors(
    url: str, texts: Path, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", url, *options(texts, "--token-file", key_file)]) == 0

    captured = capsys.readouterr()
    head, rate, latency, *_ = captured.out.splitlines()
    assert head == (f"{url}: closed loop, 16 in flight, 0.4 s after 0.1 s of warm-up, 2 payloads of texts.tsv")
    assert re.fullmatch(r"  \d+\.\d requests/s, [1-9]\d* answered with 2xx, errors: 0", rate)
    assert re.fullmatch(r"  latency in ms: mean \S+, p50 \S+, p90 \S+, p99 \S+, max \S+", latency)
    assert captured.err == ""  # no bar where nobody watches


def test_json_is_one_line_for_machines(
    url: str, texts: Path, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--token-file", key_file, "--json", "--rate", 50, "--limit", 1, "--header", "X-A: b")
    assert main(["bench", url, *options(texts, *more)]) == 0

    (line,) = capsys.readouterr().out.splitlines()
    printed = json.loads(line)
    result = LoadResult(**printed["result"])
    assert (printed["url"], printed["num_payloads"]) == (url, 1)
    assert (result.rate, result.concurrency, result.num_errors) == (50.0, bench.DEFAULT_MAX_IN_FLIGHT, 0)
    assert result.num_ok == pytest.approx(20, abs=1)


def test_without_one_success_it_is_1_and_says_what_the_server_said(
    url: str, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", url, *options(texts, "--concurrency", 2)]) == 1

    assert 'first error: 400 {"type": "InvalidKeyException"}' in capsys.readouterr().out


def test_a_plot_is_written(url: str, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "latency.html"

    main(["bench", url, *options(texts, "--plot", page, "--header", f"Authorization: Bearer {TOKEN}")])

    assert f"written: {page}" in capsys.readouterr().out
    assert "p99 of all" in page.read_text(encoding="utf-8")


def test_a_plot_that_cannot_be_written_does_not_lose_the_figures(
    url: str, texts: Path, key_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "latency.html"
    page.mkdir()

    assert main(["bench", url, *options(texts, "--token-file", key_file, "--plot", page, "--json")]) == 2

    captured = capsys.readouterr()
    assert json.loads(captured.out)["result"]
    assert f"--plot {page} cannot be written" in captured.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--plot", "/no/such/folder/x.html"], "there is no folder /no/such/folder"),
        (["--token-file", "/no/such/file"], "no token of TorchServe in /no/such/file: No such file"),
        (["--header", "content-type: a/b"], "use --content-type TYPE"),
        (["--header", "authorization: a", "--token-file", "/x"], "give one of them"),
        (["--rate", "0"], "rate is 0.0"),
    ],
)
def test_a_mistake_is_one_line(texts: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str) -> None:
    assert main(["bench", "http://127.0.0.1:1/", *options(texts, *more)]) == 2

    captured = capsys.readouterr()
    assert re.search(message, captured.err)
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_server_that_is_not_there_is_2(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1)

    assert main(["bench", f"http://127.0.0.1:{port}/", *options(texts)]) == 2
    assert "nothing answers at" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--header", "no colon"], ["--header", "a: b\r\nc: d"], ["--concurrency", "0"],
                                  ["--content-type", "a\nb"]])  # fmt: skip
def test_options_that_cannot_be_read_are_2(texts: Path, more: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "http://127.0.0.1:1/", *options(texts, *more)])


def test_a_key_file_without_the_key_is_named(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key_file.json").write_text('{"management": {}}')

    assert main(["bench", "http://127.0.0.1:1/", *options(texts, "--token-file", tmp_path / "key_file.json")]) == 2
    assert "KeyError: 'inference'" in capsys.readouterr().err


def test_the_help_needs_neither_aiohttp_nor_plotly_nor_numpy() -> None:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    assert "coordinated" not in parser.format_help()
    assert "open loop (--rate)" in parser.format_help()
    code = (
        "import sys, ts_handlers.operate.bench, ts_handlers.operate.load.generator\n"
        "heavy = {'aiohttp', 'plotly', 'numpy', 'tqdm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_ctrl_c_ends_the_load_and_prints_what_is_known(url: str, texts: Path, key_file: Path) -> None:
    command = [sys.executable, "-m", "ts_handlers.cli", "bench", url, "--payloads", str(texts)]
    command += ["--token-file", str(key_file), "--duration", "60", "--warmup", "0", "--json", "--rate", "20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until_seen(url, 10)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)

    result = LoadResult(**json.loads(out)["result"])
    assert process.returncode == bench.EXIT_INTERRUPTED
    assert err == ""
    assert result.num_ok > 0
    assert result.duration_s < 60.0


def wait_until_seen(url: str, count: int) -> None:
    """Wait until the server has seen so many requests more."""

    def num_seen() -> int:
        with urlopen(url.replace("/predictions/model", "/seen")) as response:  # noqa: S310 (our own server)
            return int(response.read())

    before, deadline = num_seen(), time.monotonic() + 30.0
    while num_seen() < before + count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_terminal_sees_a_bar(
    url: str, texts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)

    main(["bench", url, *options(texts)])

    assert "%|" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["aiohttp", "tqdm", "uvloop"])
def test_without_what_it_needs_the_extra_is_named(
    texts: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)

    assert main(["bench", url, *options(texts)]) == 2
    assert "pip install 'ts_handlers[operate]'" in capsys.readouterr().err
