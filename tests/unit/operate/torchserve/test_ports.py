from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.operate.config_texts import config_text
from ts_handlers.errors import OperatorError
from ts_handlers.operate.torchserve.config import read_config
from ts_handlers.operate.torchserve.process import ports
from ts_handlers.operate.torchserve.process.ports import (
    check_free,
    free_ports,
    is_socket_served,
    remove_dead_sockets,
    worker_socket_folder,
)


@pytest.fixture
def short_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose name leaves room for a unix socket's (108 bytes)."""
    folder = tmp_path_factory.getbasetemp().parent / f"s{os.getpid()}"
    folder.mkdir(exist_ok=True)
    yield folder
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_a_port_in_use_is_named_with_the_option_that_changes_it(
    write_config: Callable[[str], Path], tmp_path: Path
) -> None:
    config = read_config(write_config(config_text()))

    check_free(config, tmp_path)
    with (
        socket.create_server(("127.0.0.1", config.grpc[0].port)),
        pytest.raises(OperatorError, match=r"\(gRPC inference\) is in use .* --grpc-inference-port PORT"),
    ):
        check_free(config, tmp_path)


def test_a_worker_s_socket_in_use_is_an_error_and_a_dead_one_is_removed(
    write_config: Callable[[str], Path], short_folder: Path
) -> None:
    config = read_config(write_config(config_text()))
    path = ports.worker_socket(short_folder, 48_001)
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
    config = read_config(write_config(config_text(first_worker=first) + "use_native_io=false\n"))

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
