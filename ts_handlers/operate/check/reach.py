"""Who can reach the server and what they can do there: addresses, ports, tokens, URLs, certificates."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator, Sequence

from ts_handlers.operate.check.finding import Finding, Rules, found, judge
from ts_handlers.operate.check.server import Server, compiled
from ts_handlers.operate.torchserve.address import GRPC_PORTS, HTTP_PORTS, LARGEST_PORT, Address

_MAX_URLS = 1000
_FOREIGN_URLS = ("https://example.org/model.mar", "http://example.org/model.mar", "file:///etc/model.mar")
_CLOSE_URLS = "write allowed_urls=(?!), which matches nothing: files of the model store need no match"


def check_reach(server: Server) -> Iterator[Finding]:
    """Check addresses, ports and what clients may do."""
    addresses = _addresses(server)
    for role in HTTP_PORTS:
        if server.address(role) is None:
            text = "TorchServe does not start: it is no address"
            remedy = "write http://ADDRESS:PORT, with a name or an IPv4 address"
            yield found(f"problem: {role}_address", server.values[f"{role}_address"], f"{text}; {remedy}")
    yield from judge(_RULES, server)
    yield from _ports(server, addresses)
    yield from _exposure(server, addresses)
    if server.place.is_here:
        yield from _hosts(addresses)


def _addresses(server: Server) -> list[Address]:
    """Return the TCP addresses that TorchServe binds, as far as they can be read."""
    roles = [role for role in HTTP_PORTS if role != "metrics" or server.is_true("enable_metrics_api", default=True)]
    http = [address for role in roles if (address := server.address(role)) and address.scheme != "unix"]
    for role, default in GRPC_PORTS.items():
        host = server.values.get(f"grpc_{role}_address", "127.0.0.1")
        http.append(Address(f"grpc_{role}", "grpc", host, server.number(f"grpc_{role}_port", default)))
    return http


def _key(address: Address) -> str:
    return f"{address.role}_port" if address.scheme == "grpc" else f"{address.role}_address"


def _lacks_key_pair(server: Server) -> bool:
    return not (server.is_written("private_key_file") and server.is_written("certificate_file"))


def _open_urls(server: Server) -> str | bool:
    patterns = server.values.get("allowed_urls", "file://.*|http(s)?://.*").split(",")[:_MAX_URLS]
    readable = [pattern for text in patterns if (pattern := compiled(text))]
    is_open = any(pattern.fullmatch(url) for pattern in readable for url in _FOREIGN_URLS)
    return is_open and server.values.get("allowed_urls", "not set")


_RULES: Rules[Server] = {
    "problem: allowed_urls: models may come from anywhere, and enable_model_api=true lets clients register them: their "
    f"code runs here; {_CLOSE_URLS}": lambda server: server.is_true("enable_model_api") and _open_urls(server),
    f"warning: allowed_urls: models may come from anywhere, as {_FOREIGN_URLS[0]}; {_CLOSE_URLS}": lambda server: (
        not server.is_true("enable_model_api") and _open_urls(server)
    ),
    f"problem: allowed_urls: up to {_MAX_URLS} are checked; list fewer": lambda server: (
        server.values.get("allowed_urls", "").count(",") >= _MAX_URLS and "very many patterns"
    ),
    "warning: private_key_file: without a key TorchServe signs a certificate itself, another one at each start; "
    "set private_key_file and certificate_file, or keystore": lambda server: (
        server.uses_https and _lacks_key_pair(server) and not server.is_written("keystore")
    ),
    "problem: enable_grpc_ssl: gRPC reads private_key_file and certificate_file only, and does not start without "
    "them; set both": lambda server: server.is_true("enable_grpc_ssl") and _lacks_key_pair(server),
    "warning: install_py_dep_per_model: loading a model runs pip with what the archive names, on every start; "
    "install packages in the serving image, and write false": lambda server: server.is_true("install_py_dep_per_model"),
    "hint: cors_allowed_origin: any web page may call the server from its visitors' browsers; name origins": lambda server: (
        server.values.get("cors_allowed_origin") == "*"
    ),
}


def _ports(server: Server, addresses: Sequence[Address]) -> Iterator[Finding]:
    for address in addresses:
        if not 0 < address.port <= LARGEST_PORT:
            text = f"TorchServe binds ports 1 to {LARGEST_PORT}; choose another one"
            yield found(f"problem: {_key(address)}", address.port, text)
    for one, other in itertools.combinations(addresses, 2):
        if one.port != other.port or not (one.host == other.host or one.is_any or other.is_any):
            continue
        about, text = "problem", "the second one cannot be bound, and TorchServe ends; choose another port"
        if {one.role, other.role} == {"inference", "management"} and one.host == other.host:
            about = "warning"
            text = "every client that may ask for predictions reaches the management API; give it another"
        yield found(f"{about}: {_key(other)}", f"port {other.port}, as {_key(one)}", text)
    first, count = server.number("initial_worker_port", 9000), server.num_workers
    if first < 1 or first + count > LARGEST_PORT + 1:
        text = f"{count} workers are numbered from here, and there are numbers up to {LARGEST_PORT}"
        yield found("problem: initial_worker_port", first, f"{text}; choose a smaller one")
    taken = [_key(address) for address in addresses if address.port in range(first, first + count)]
    if taken and not server.is_unix_workers:
        text = f"without native I/O workers listen on TCP ports, and {', '.join(taken)} is one of them; choose another range"
        yield found("problem: initial_worker_port", f"{first} and on, {count} workers", text)


def _exposure(server: Server, addresses: Sequence[Address]) -> Iterator[Finding]:
    is_open, can_register = not server.is_token_required, server.is_true("enable_model_api")
    reached = {address.role: address for address in addresses if not address.is_loopback}
    for role in ("management", "grpc_management"):
        if role in reached:
            text = f"whoever reaches it can {'load code and ' if can_register else ''}stop workers, "
            text += "without any token" if is_open else "and a token is all that protects it"
            text += "; write 127.0.0.1" + (", or switch token authorization on" if is_open else "")
            severity = "problem" if is_open and can_register else "warning"
            yield found(f"{severity}: {role}_address", reached[role].host, text)
    if is_open and {"inference", "grpc_inference"} & set(reached):
        text = "any client that reaches the inference address is served; write false, or let a gateway ask who they are"
        yield found("warning: disable_token_authorization", "true", text)
    elif is_open:
        text = "any process of this machine is served; write false if in doubt"
        yield found("hint: disable_token_authorization", "true", text)


def _hosts(addresses: Sequence[Address]) -> Iterator[Finding]:
    """Try each address: one that does not resolve, or is another machine's, ends TorchServe."""
    for host, address in {address.host: address for address in reversed(addresses)}.items():
        try:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
                probe.bind((host, 0))
            continue
        except (OSError, ValueError, TypeError) as error:  # the last two: it is no name at all
            reason = getattr(error, "strerror", None) or str(error)
        text = f"TorchServe does not start where it cannot bind it, as here ({reason}); write 127.0.0.1 or 0.0.0.0, or say "
        text += "with --root DIR that the server runs elsewhere"
        yield found(f"problem: {address.role}_address", host, text)
