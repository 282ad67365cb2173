"""Who can reach the server and what they can do there: addresses, ports, tokens, URLs, bodies."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ts_handlers.operate.torchserve.models import loaded_models
from ts_handlers.operate.traps.finding import Finding
from ts_handlers.operate.traps.subject import Subject, compiled

_ADDRESS = re.compile(r"((https|http)://([^:^/]+)(:([0-9]{1,20}))?)|(unix:(/.*))", re.IGNORECASE)
_MAX_URLS = 1000
_LOOPBACK = re.compile(r"127\..*|localhost", re.IGNORECASE)
_HTTP = {"inference": (8080, 80, 443), "management": (8081, 8081, 8444), "metrics": (8082, 8082, 8445)}
"""By address: its port where the key is not set, and where the address has none, for http and https."""

_GRPC = {"inference": 7070, "management": 7071}
_FOREIGN_URLS = ("https://example.org/model.mar", "http://example.org/model.mar", "file:///etc/model.mar")
_EXPOSED = ("management", "grpc_management")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address TorchServe binds.

    Attributes:
        key: The property it comes from.
        role: What answers there.
        host: The address.
        port: The port.
    """

    key: str
    role: str
    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine (or pod) reaches it."""
        return _LOOPBACK.fullmatch(self.host) is not None


def check_reach(subject: Subject) -> Iterator[Finding]:
    """Check addresses, ports and what clients may do."""
    endpoints = list(_http(subject)) + list(_grpc(subject))
    for key in (f"{name}_address" for name in _HTTP):
        text = subject.values.get(key)
        if text is not None and not _ADDRESS.fullmatch(text):
            yield Finding(
                "problem", key, repr(text), "TorchServe does not start: it is no address", "write http://ADDRESS:PORT"
            )
    yield from _ports(subject, endpoints)
    yield from _exposure(subject, endpoints)
    yield from _urls(subject)
    yield from _encryption(subject)
    if subject.is_true("install_py_dep_per_model"):
        yield Finding(
            "warning",
            "install_py_dep_per_model",
            "true",
            "loading a model runs pip with what the archive names, on every start",
            "install packages in the serving image, and write false",
        )
    if subject.values.get("cors_allowed_origin") == "*":
        yield Finding(
            "hint",
            "cors_allowed_origin",
            "*",
            "any web page may call the server from its visitors' browsers",
            "name origins",
        )


def _http(subject: Subject) -> Iterator[Endpoint]:
    for role, (unset, http, https) in _HTTP.items():
        key = f"{role}_address"
        if role == "metrics" and not subject.is_true("enable_metrics_api", default=True):
            continue
        match = _ADDRESS.fullmatch(subject.values.get(key, f"http://127.0.0.1:{unset}"))
        if match is None or match[3] is None:
            continue
        default = https if match[2].lower() == "https" else http
        yield Endpoint(key, role, match[3], int(match[5] or default))


def _grpc(subject: Subject) -> Iterator[Endpoint]:
    for role, default in _GRPC.items():
        host = subject.values.get(f"grpc_{role}_address", "127.0.0.1")
        yield Endpoint(f"grpc_{role}_port", f"grpc_{role}", host, subject.number(f"grpc_{role}_port", default))


def _ports(subject: Subject, endpoints: list[Endpoint]) -> Iterator[Finding]:
    for endpoint in endpoints:
        if not 0 < endpoint.port < 65535:
            yield Finding(
                "problem", endpoint.key, str(endpoint.port), "TorchServe binds ports 1 to 65534", "choose another one"
            )
    for one, other in itertools.combinations(endpoints, 2):
        if one.port != other.port or not _meet(one.host, other.host):
            continue
        if {one.role, other.role} == {"inference", "management"} and one.host == other.host:
            yield Finding(
                "warning",
                other.key,
                f"{other.host}:{other.port}, as {one.key}",
                "every client that may ask for predictions reaches the management API",
                "give management another port, on 127.0.0.1",
            )
        else:
            yield Finding(
                "problem",
                other.key,
                f"port {other.port}, as {one.key}",
                "the second one cannot be bound, and TorchServe ends",
                "choose another port",
            )
    yield from _worker_ports(subject, endpoints)


def _meet(one: str, other: str) -> bool:
    any_address = {"0.0.0.0", "*"}  # noqa: S104 (compared, not bound)
    return one == other or bool({one, other} & any_address)


def _worker_ports(subject: Subject, endpoints: list[Endpoint]) -> Iterator[Finding]:
    first = subject.number("initial_worker_port", 9000)
    count = sum(model.workers for model in loaded_models(subject))
    numbers = range(first, first + count)
    if first < 1 or first + count > 65536:
        yield Finding(
            "problem",
            "initial_worker_port",
            str(first),
            f"{count} workers are numbered from here, and there are numbers up to 65535",
            "choose a smaller one",
        )
    taken = [endpoint.key for endpoint in endpoints if endpoint.port in numbers]
    if taken and not subject.is_true("use_native_io", default=True):
        yield Finding(
            "problem",
            "initial_worker_port",
            f"{first} and on, {count} workers",
            f"without native I/O workers listen on TCP ports, and {', '.join(taken)} is one of them",
            "choose another range",
        )


def _exposure(subject: Subject, endpoints: list[Endpoint]) -> Iterator[Finding]:
    is_open = subject.is_true("disable_token_authorization")
    can_register = subject.is_true("enable_model_api")
    for endpoint in endpoints:
        if endpoint.is_loopback or endpoint.role not in _EXPOSED:
            continue
        powers = "load code and stop workers" if can_register else "stop workers"
        yield Finding(
            "problem" if is_open and can_register else "warning",
            endpoint.key if endpoint.role == "management" else "grpc_management_address",
            endpoint.host,
            f"whoever reaches it can {powers}, {'without any token' if is_open else 'and a token is all that protects it'}",
            "write 127.0.0.1" + (", or switch token authorization on" if is_open else ""),
        )
    if is_open and any(not one.is_loopback for one in endpoints if one.role in ("inference", "grpc_inference")):
        yield Finding(
            "warning",
            "disable_token_authorization",
            "true",
            "any client that reaches the inference address is served",
            "write false, or let a gateway ask who they are",
        )
    elif is_open:
        yield Finding(
            "hint",
            "disable_token_authorization",
            "true",
            "any process of this machine is served",
            "write false if in doubt",
        )


def _urls(subject: Subject) -> Iterator[Finding]:
    patterns = subject.values.get("allowed_urls", "file://.*|http(s)?://.*").split(",")
    if len(patterns) > _MAX_URLS:
        yield Finding(
            "problem", "allowed_urls", f"{len(patterns)} patterns", f"up to {_MAX_URLS} are checked", "list fewer"
        )
        return
    matched = [url for url in _FOREIGN_URLS if any(_matches(pattern, url) for pattern in patterns)]
    if not matched:
        return
    can_register = subject.is_true("enable_model_api")
    yield Finding(
        "problem" if can_register else "warning",
        "allowed_urls",
        subject.values.get("allowed_urls", "not set"),
        f"models may come from anywhere, as {matched[0]}"
        + (", and enable_model_api=true lets clients register them: their code runs here" if can_register else ""),
        "write allowed_urls=(?!), which matches nothing: files of the model store need no match",
    )


def _matches(pattern: str, url: str) -> bool:
    readable = compiled(pattern)
    return readable is not None and readable.fullmatch(url) is not None


def _encryption(subject: Subject) -> Iterator[Finding]:
    values = subject.values
    https = [key for key in (f"{name}_address" for name in _HTTP) if values.get(key, "").lower().startswith("https")]
    has_key = "keystore" in values or {"private_key_file", "certificate_file"} <= set(values)
    if https and not has_key:
        yield Finding(
            "warning",
            https[0],
            values[https[0]],
            "without a key TorchServe signs a certificate itself, another one at each start",
            "set private_key_file and certificate_file, or keystore",
        )
    if subject.is_true("enable_grpc_ssl") and not {"private_key_file", "certificate_file"} <= set(values):
        yield Finding(
            "problem",
            "enable_grpc_ssl",
            "true",
            "gRPC reads private_key_file and certificate_file only, and does not start without them",
            "set both",
        )
