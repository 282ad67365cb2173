"""What `serve` checks and decides, without TorchServe; the frontends here are shell commands."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ts_handlers.cli import main
from ts_handlers.errors import ConfigError, OperatorError
from ts_handlers.operate import ports
from ts_handlers.operate.background import BackgroundServer
from ts_handlers.operate.frontend import Frontend, frontend_command, torchserve_folder
from ts_handlers.operate.java import Java
from ts_handlers.operate.ports import (
    check_free,
    free_ports,
    is_socket_served,
    remove_dead_sockets,
    worker_socket_folder,
)
from ts_handlers.operate.serve import claim_run_folder, frontend_environ
from ts_handlers.operate.server_config import read_server_config

MODELS = 'models={"a": {"1.0": {"minWorkers": 2}}}\n'


def config_text(*, first_worker: int = 48_000) -> str:
    inference, management, metrics, grpc_inference, grpc_management = free_ports(5)
    return MODELS + (
        f"inference_address=http://127.0.0.1:{inference}\nmanagement_address=http://127.0.0.1:{management}\n"
        f"metrics_address=http://127.0.0.1:{metrics}\ngrpc_inference_port={grpc_inference}\n"
        f"grpc_management_port={grpc_management}\ninitial_worker_port={first_worker}\n"
    )


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "config.properties"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def short_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose name leaves room for a unix socket's (108 bytes)."""
    folder = tmp_path_factory.getbasetemp().parent / f"s{os.getpid()}"
    folder.mkdir(exist_ok=True)
    yield folder
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_a_folder_that_was_not_configured_says_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path)]) == 2
    assert f"write it with: ts-handlers configure {tmp_path}" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_said(
    tmp_path: Path, write_config: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(MODELS)

    assert main(["serve", str(tmp_path / "gone"), "--config", str(config)]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_log_configuration_that_is_not_there_is_said(
    tmp_path: Path, write_config: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(MODELS)

    assert main(["serve", str(tmp_path), "--log-config", "gone.xml"]) == 2
    assert "no log configuration" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no models="),
        ("models=[1]\n", "models= cannot be read"),
        ("models={\n", "models= cannot be read"),
        ("models={}\n", "models= is empty"),
        ('models={"a": {"1.0": {}}}\n', "minWorkers is missing"),
        ('models={"a": {"1.0": {"minWorkers": "x"}}}\n', "models= cannot be read"),
        (MODELS + "inference_address=unix:/x\n", "inference_address is 'unix:/x'"),
        (MODELS + "grpc_inference_port=high\n", "grpc_inference_port is 'high'"),
        (MODELS + "initial_worker_port=0\n", "initial_worker_port is '0'"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(
    write_config: Callable[[str], Path], text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_server_config(write_config(text))


def test_a_configuration_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_server_config(tmp_path)


def test_torchserve_s_defaults_are_known(write_config: Callable[[str], Path]) -> None:
    config = read_server_config(write_config(MODELS + "inference_address=https://0.0.0.0:8443\n"))

    assert [address.port for address in config.addresses] == [8443, 8081, 8082, 7070, 7071]
    assert config.inference.url == "https://127.0.0.1:8443"
    assert (config.worker_ports, config.models[0].startup_timeout_s) == (range(9000, 9002), 120)


def test_metrics_can_be_off(write_config: Callable[[str], Path]) -> None:
    config = read_server_config(write_config(MODELS + "enable_metrics_api=false\n"))

    assert config.metrics is None
    assert len(config.addresses) == 4


def test_a_port_in_use_is_named_with_the_option_that_changes_it(
    write_config: Callable[[str], Path], tmp_path: Path
) -> None:
    config = read_server_config(write_config(config_text()))

    check_free(config, tmp_path)
    with (
        socket.create_server(("127.0.0.1", config.grpc[0].port)),
        pytest.raises(OperatorError, match=r"\(gRPC inference\) is in use .* --grpc-inference-port PORT"),
    ):
        check_free(config, tmp_path)


def test_a_worker_s_socket_in_use_is_an_error_and_a_dead_one_is_removed(
    write_config: Callable[[str], Path], short_folder: Path
) -> None:
    config = read_server_config(write_config(config_text()))
    path = ports.worker_socket(short_folder, config.initial_worker_port + 1)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)
        with pytest.raises(
            OperatorError, match=r"48001, which a worker needs, is in use: stop .* --initial-worker-port"
        ):
            check_free(config, short_folder)
        remove_dead_sockets([path])
        assert path.exists()

    check_free(config, short_folder)
    remove_dead_sockets([path])
    assert not path.exists()


def test_a_socket_of_another_container_is_found_by_connecting(short_folder: Path, tmp_path: Path) -> None:
    path, no_table = short_folder / "s", tmp_path / "unix"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert not is_socket_served(path, no_table)
        server.listen(1)
        assert is_socket_served(path, no_table)


def test_a_dead_socket_of_somebody_else_is_an_error(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = short_folder / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))

    def refuse(_path: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(OperatorError, match="left behind by another user's server"):
            remove_dead_sockets([path])


def test_workers_on_tcp_are_checked_as_ports(write_config: Callable[[str], Path], tmp_path: Path) -> None:
    (first,) = free_ports(1)
    config = read_server_config(write_config(config_text(first_worker=first) + "use_native_io=false\n"))

    with (
        socket.create_server(("127.0.0.1", first)),
        pytest.raises(OperatorError, match=rf"port {first}, which a worker needs"),
    ):
        check_free(config, tmp_path)


def test_an_address_that_is_not_ours_is_an_error() -> None:
    with pytest.raises(OperatorError, match=r"cannot listen on 192\.0\.2\.1"):
        ports.is_port_free("192.0.2.1", 8080)


@pytest.mark.parametrize(
    ("vmargs", "environ", "folder"),
    [
        ((), {}, "/tmp"),  # noqa: S108
        ((), {"TEMP": "/scratch"}, "/scratch"),
        (("-Xmx1g", "-Djava.io.tmpdir=/a", "-Djava.io.tmpdir=/b"), {"TEMP": "/scratch"}, "/b"),
    ],
)
def test_worker_sockets_are_where_java_puts_temporary_files(
    vmargs: tuple[str, ...], environ: dict[str, str], folder: str
) -> None:
    assert worker_socket_folder(vmargs, environ) == Path(folder)


def test_a_run_folder_is_held_by_one_server(tmp_path: Path) -> None:
    with claim_run_folder(tmp_path / "run") as folder:
        assert folder.key_file == tmp_path / "run" / "key_file.json"
        assert folder.logs == tmp_path / "run" / "logs"
        with pytest.raises(OperatorError, match="another server runs in"), claim_run_folder(tmp_path / "run"):
            pass
    with claim_run_folder(tmp_path / "run"):
        pass


def test_a_run_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OperatorError, match="choose another --run-dir"), claim_run_folder(tmp_path / "file" / "run"):
        pass


def test_workers_learn_how_many_share_the_machine(write_config: Callable[[str], Path]) -> None:
    config = read_server_config(write_config(MODELS))
    environ = frontend_environ(config, Path("/jdk"), {"TS_CONFIG_FILE": "other", "PATH": "/bin"})

    threads = str(max(1, len(os.sched_getaffinity(0)) // 2))
    pools = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), threads)
    assert environ == {"PATH": "/bin", "JAVA_HOME": "/jdk", "TS_HANDLERS_WORKERS": "2"} | pools
    assert frontend_environ(config, Path("/jdk"), {"OMP_NUM_THREADS": "7"})["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize(("version", "is_new"), [(17, False), (25, True)])
def test_the_command_is_the_one_torchserve_runs(
    write_config: Callable[[str], Path], tmp_path: Path, version: int, *, is_new: bool
) -> None:
    config = read_server_config(write_config(MODELS + "vmargs=-Xmx1g -XX:+UseSerialGC\nplugins_path=/plugins\n"))
    java = Java(Path("/jdk/bin/java"), Path("/jdk"), version, "JAVA_HOME")
    package = torchserve_folder()

    command = frontend_command(java, config, tmp_path, temporary=Path("/scratch"))

    assert command[:2] == ["/jdk/bin/java", f"-Dmodel_server_home={package.parent}"]
    assert command[2].startswith("-Dlog4j.configurationFile=file:///")
    assert "-Djava.io.tmpdir=/scratch" in command
    assert ("--sun-misc-unsafe-memory-access=allow" in command) == is_new
    assert command[command.index("-Xmx1g") :] == [
        *("-Xmx1g", "-XX:+UseSerialGC", "-cp", f"{package}/frontend/*:/plugins/*", "org.pytorch.serve.ModelServer"),
        *("--python", sys.executable, "-f", str(config.path), "-s", str(tmp_path), "-ncs"),
    ]


@pytest.mark.parametrize("has_package", [True, False])
def test_without_torchserve_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_package: bool
) -> None:
    spec = importlib.machinery.ModuleSpec("ts", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: spec if has_package else None)

    with pytest.raises(OperatorError, match="pip install torchserve"):
        torchserve_folder()


def shell(script: str, tmp_path: Path) -> Frontend:
    return Frontend(["/bin/sh", "-c", script], working_folder=tmp_path, environ=os.environ)


def wait_for(file: Path) -> str:
    deadline = time.monotonic() + 10
    while not (file.exists() and file.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return file.read_text()


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -9 $$", 137)])
def test_the_exit_code_is_the_frontend_s(tmp_path: Path, script: str, code: int) -> None:
    with shell(script, tmp_path) as frontend:
        assert frontend.wait() == code


def test_a_frontend_is_asked_first_and_killed_when_it_does_not_listen(tmp_path: Path) -> None:
    with shell("trap '' TERM; sleep 60 & echo $! > worker; wait; sleep 60", tmp_path) as frontend:
        worker = int(wait_for(tmp_path / "worker"))
        start = time.monotonic()
        frontend.stop(signal.SIGTERM, 0.3)

    assert 0.3 <= time.monotonic() - start < 5
    assert frontend.poll() == -signal.SIGKILL
    assert not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE


def test_workers_do_not_outlive_a_frontend_that_ends(tmp_path: Path) -> None:
    with shell("sleep 60 & echo $! > worker; exit 1", tmp_path) as frontend:
        worker = int(wait_for(tmp_path / "worker"))
        assert frontend.wait() == 1

    assert not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE


def test_a_frontend_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os\nfrom pathlib import Path\nfrom ts_handlers.operate.frontend import Frontend\n"
        f"Frontend(['/bin/sh', '-c', 'echo $$ > java; exec sleep 60'], working_folder=Path({str(tmp_path)!r}), "
        "environ=os.environ).wait()"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        java = psutil.Process(int(wait_for(tmp_path / "java")))
        parent.kill()
        parent.wait()
        assert psutil.wait_procs([java], timeout=5)[1] == []


def test_a_java_that_cannot_be_started_is_said(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="cannot start"):
        Frontend([str(tmp_path / "java")], working_folder=tmp_path, environ={})


def test_a_background_server_that_cannot_start_says_why(write_config: Callable[[str], Path], tmp_path: Path) -> None:
    write_config(config_text())
    server = BackgroundServer(tmp_path, options=["--log-config", "gone.xml"])

    with pytest.raises(OperatorError, match="call start"):
        server.stop()
    with pytest.raises(OperatorError, match=r"ended with code 2: ts-handlers serve: error: .*gone\.xml"), server:
        pass
