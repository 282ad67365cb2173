"""Which of the addresses a server wants are taken: TCP ports, and the sockets workers listen on."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ts_handlers.errors import OperatorError
from ts_handlers.operate.torchserve.address import Address
from ts_handlers.operate.torchserve.config import ServerConfig
from ts_handlers.operate.torchserve.models import worker_numbers

TMPDIR_OPTION = "-Djava.io.tmpdir="
"""Java's option for its temporary folder."""


_PORT_OPTIONS = ("inference", "management", "metrics", "grpc-inference", "grpc-management")


def free_ports(count: int) -> list[int]:
    """Return TCP ports of 127.0.0.1 that nobody listens on now, each another."""
    with contextlib.ExitStack() as probes:
        sockets = [probes.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(probe.getsockname()[1]) for probe in sockets]


def free_port_options() -> list[str]:
    """Return options of `ts-handlers configure` for a server that meets no other one on this machine.

    Worker sockets are numbered from a free port on: servers with ports of their own have numbers of their own, too.
    """
    ports = free_ports(len(_PORT_OPTIONS))
    options = [word for name, port in zip(_PORT_OPTIONS, ports, strict=True) for word in (f"--{name}-port", str(port))]
    return [*options, "--initial-worker-port", str(ports[0])]


def worker_socket(folder: Path, port: int) -> Path:
    """Return the unix socket TorchServe gives the worker with this number."""
    return folder / f".ts.sock.{port}"


def worker_socket_folder(vmargs: Sequence[str] = (), environ: Mapping[str, str] = os.environ) -> Path:
    """Return the frontend's temporary folder: `java.io.tmpdir`, TEMP (which TorchServe's launcher reads) or /tmp."""
    for option in reversed(vmargs):
        if option.startswith(TMPDIR_OPTION):
            return Path(option.removeprefix(TMPDIR_OPTION))
    return Path(environ.get("TEMP") or "/tmp")  # noqa: S108 (it is Java's default, which does not read TMPDIR)


def is_port_free(host: str, port: int) -> bool:
    """Say whether a server could bind this TCP address; it is bound for a moment to find out.

    Raises:
        OperatorError: The host is no address of this machine, or the port needs privileges.
    """
    try:
        family, *_, where = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise OperatorError(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another") from error
    return True


def is_socket_served(path: Path, net_unix: Path = Path("/proc/net/unix")) -> bool:
    """Say whether a process listens on a unix socket; a file left behind by a dead one does not count.

    The kernel's table is asked first: connecting would take the one connection a starting worker waits for. A socket of
    another container on a shared folder is only found by connecting.
    """
    if not path.exists():
        return False
    with contextlib.suppress(OSError):
        if any(line.endswith(f" {path}") for line in net_unix.read_text(errors="replace").splitlines()):
            return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        error = client.connect_ex(str(path))
    return error in {0, errno.EAGAIN, errno.EINPROGRESS}


def remove_dead_sockets(paths: Iterable[Path]) -> None:
    """Remove the sockets of workers that are gone.

    Raises:
        OperatorError: One belongs to somebody else, so that a worker could not replace it.
    """
    for path in paths:
        if path.exists() and not is_socket_served(path):
            try:
                path.unlink()
            except OSError as error:
                raise OperatorError(
                    f"{path} was left behind by another user's server and cannot be removed ({error.strerror}); "
                    "remove it, or choose other numbers: ts-handlers configure --initial-worker-port N"
                ) from error


def check_free(config: ServerConfig, folder: Path) -> None:
    """Check that everything the server will bind is free, before Java starts.

    Args:
        config: The server's configuration.
        folder: Where the workers' sockets are.

    Raises:
        OperatorError: Names what is taken and the option that chooses another.
    """
    for address in config.addresses:
        if not is_port_free(address.host, address.port):
            raise OperatorError(
                f"port {address.port} ({address.name}) is in use on {address.host}: stop what listens there (another "
                f"TorchServe?), or choose another port: ts-handlers configure {_option(address)} PORT"
            )
    for port in worker_numbers(config):
        if config.is_unix_workers:
            path = worker_socket(folder, port)
            taken, what = is_socket_served(path), str(path)
        else:
            taken, what = not is_port_free("127.0.0.1", port), f"port {port}"
        if taken:
            raise OperatorError(
                f"{what}, which a worker needs, is in use: stop the other TorchServe on this machine, or choose other "
                "numbers: ts-handlers configure --initial-worker-port N"
            )


def _option(address: Address) -> str:
    return f"--{address.role.replace('_', '-')}-port"
