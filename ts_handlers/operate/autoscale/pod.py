"""This pod on the API server, brought to the CPUs that its workers need, as far as the cluster lets it."""

from __future__ import annotations

import json
import math
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ts_handlers.errors import ConfigError, OperatorError
from ts_handlers.operate.autoscale.report import Report
from ts_handlers.operate.autoscale.settings import KubernetesSettings
from ts_handlers.operate.http import Answer, NoAnswerError, send
from ts_handlers.operate.quantity import format_cpus, parse_quantity

_FIRST_RETRY_S, _REFUSED_RETRY_S, _LONGEST_RETRY_S = 2.0, 30.0, 300.0
"""What has failed, and what was infeasible, is tried again after so long, then after twice as long: the node may grow."""

_SETTLED_S, _DEFERRED_S = 30.0, 5.0
"""The pod is looked at so often where nothing is wanted of it, and while a resize waits for room."""

_TROUBLE = {
    "infeasible": ("{wanted:g} CPUs are infeasible: {why}; {cpus:g} stay in effect", "the node can never give them"),
    "deferred": ("{wanted:g} CPUs are deferred: {why}; {cpus:g} stay in effect until then", "the node has no room now"),
    "error": ("the resize to {wanted:g} CPUs fails: {why}; {cpus:g} are in effect", "the node says no more"),
}
"""What may become of a resize: what to say, and why where Kubernetes does not say."""

_SAME = 0.0005
"""Kubernetes counts CPUs in thousandths."""

_PATCH = "application/strategic-merge-patch+json"

_REFUSALS = {
    401: ("unauthorized", "the API server does not take the service account's token ({said})"),
    403: ("forbidden", "the service account may not {what} ({said}); it needs get on pods and patch on pods/resize"),
    404: ("missing", "{what}: {said}; is it a pod's name, and Kubernetes 1.33 or newer?"),
}
"""Label and text by status; every other is `refused`."""


class PodError(OperatorError):
    """The API server does not do what it was asked.

    Attributes:
        failure: Why, as a label: unreachable, unauthorized, forbidden, missing, refused or unusable.
    """

    def __init__(self, failure: str, message: str) -> None:
        super().__init__(message)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Container:
    """The serving container as the API server has it.

    Attributes:
        limit: CPUs of its limit in the pod's spec, that is as asked for; None where it has none.
        in_effect: CPUs of the limit that the kubelet has applied, or of the spec where it does not say.
        request_share: Its request of CPUs / its limit.
        memory_bytes: Its memory limit; None where it has none.
        resizing: What has become of a resize: one of the troubles, "in progress", or empty where there is none.
        message: What Kubernetes says of it.
    """

    limit: float | None
    in_effect: float | None
    request_share: float
    memory_bytes: float | None
    resizing: str
    message: str


class Pod:
    """A client of the API server for one pod.

    Args:
        settings: Where the API server and the pod are.
        environ: The environment.

    Raises:
        ConfigError: It is not said which pod, or which API server.
    """

    def __init__(self, settings: KubernetesSettings, environ: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._account = Path(settings.service_account)
        try:
            namespace = settings.namespace or self._read("namespace")
        except PodError as error:
            raise ConfigError(f"{error} See kubernetes.namespace") from error
        name = settings.pod or environ.get("POD_NAME") or environ.get("HOSTNAME")
        if not name:
            raise ConfigError("which pod is this? Set kubernetes.pod, or POD_NAME from metadata.name (downward API)")
        self._path = f"pods/{name}"
        api_url = (settings.api_url or _api_url(environ)).rstrip("/")
        self._url = f"{api_url}/api/v1/namespaces/{namespace}/{self._path}"
        self._description = f"container {settings.container} of pod {namespace}/{name}"

    def __str__(self) -> str:
        """Name the container and the pod."""
        return self._description

    def read(self) -> Container:
        """Return what holds for the serving container now.

        Raises:
            PodError: No answer, a refusal, or a pod that cannot be resized.
        """
        answer = self._send("GET", "")
        try:
            return parse_pod(answer.json(), self._settings.container)
        except (KeyError, TypeError, ValueError, NoAnswerError) as error:
            raise PodError("unusable", f"{self} cannot be understood: {error!r}") from error

    def resize(self, cpus: float, request_share: float) -> None:
        """Ask for another CPU limit; the request keeps its share of it, so that the pod keeps its quality of service.

        Raises:
            PodError: No answer, or a refusal.
        """
        resources = {"requests": {"cpu": format_cpus(cpus * request_share)}, "limits": {"cpu": format_cpus(cpus)}}
        patch = {"spec": {"containers": [{"name": self._settings.container, "resources": resources}]}}
        self._send("PATCH", "/resize", json.dumps(patch).encode())

    def _send(self, method: str, path: str, body: bytes | None = None) -> Answer:
        headers = {"Authorization": f"Bearer {self._read('token')}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = _PATCH
        url, timeout_s = f"{self._url}{path}", self._settings.timeout_s
        try:
            answer = send(method, url, timeout_s=timeout_s, headers=headers, body=body, context=self._context())
        except NoAnswerError as error:
            raise PodError("unreachable", f"the API server: {error}") from error
        if answer.status in (200, 201, 202):
            return answer
        failure, text = _REFUSALS.get(answer.status, ("refused", "{what}: {said}"))
        said = f"status {answer.status}, {answer.error()[1]}"
        raise PodError(failure, text.format(what=f"{method} {self._path}{path}", said=said))

    def _context(self) -> ssl.SSLContext | None:
        """Trust the cluster's certificate authority, which rotates as well."""
        if not self._url.startswith("https:"):
            return None
        authority = self._account / "ca.crt"
        try:
            return ssl.create_default_context(cafile=str(authority) if authority.exists() else None)
        except (OSError, ssl.SSLError) as error:
            raise PodError("unauthorized", f"{authority} cannot be used: {error}") from error

    def _read(self, name: str) -> str:
        """Read a file of the service account."""
        file = self._account / name
        try:
            return file.read_text(encoding="utf-8").strip()
        except OSError as error:
            text = f"cannot read {file}: {error.strerror or error}"
            raise PodError(
                "unauthorized", f"{text}; is a service account mounted (kubernetes.service_account)?"
            ) from error


class Resizer:
    """Reconciles the pod, call by call; it never waits.

    Attributes:
        cpus: CPUs in effect; infinite where the container has no limit, 0 while nobody knows.
        memory_bytes: The container's memory limit; None where it has none or nobody knows.
        look_in_s: When it is worth looking again; 0 while a resize is under way.

    Args:
        pod: The pod.
        clock: Seconds.
        report: Where changes are told.
    """

    def __init__(self, pod: Pod, clock: Callable[[], float], report: Report) -> None:
        self._pod, self._clock, self._report = pod, clock, report
        self.cpus = 0.0
        self.memory_bytes: float | None = None
        self.look_in_s = _SETTLED_S
        self._look_at = self._refused_until = -math.inf
        self._asked = self._refused = math.inf
        self._num_failures = self._num_refused = 0

    def reconcile(self, wanted: float) -> None:
        """Ask for so many CPUs where the pod has not got them, and keep what is in effect."""
        now = self._clock()
        is_new = self._num_failures == 0 and abs(wanted - self._asked) > _SAME
        if now < self._look_at and not is_new:
            return
        try:
            self.look_in_s = self._step(self._pod.read(), wanted)
        except PodError as error:
            self.look_in_s = _SETTLED_S
            self._look_at = now + min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2**self._num_failures)
            self._num_failures += 1
            self._report.up("kubernetes", f"{error}; the pod keeps its size")
            self._report.count("resize_failures", error.failure)
        else:
            self._look_at = now + self.look_in_s
            self._num_failures, self._asked = 0, wanted
            self._report.up("kubernetes", None)
        self._report.set("cpus", wanted, "wanted")
        self._report.set("cpus", self.cpus, "in_effect")

    def _step(self, has: Container, wanted: float) -> float:
        """Do what is to be done next; return the seconds until the next look."""
        self.memory_bytes = has.memory_bytes
        if has.limit is None:
            self.cpus = math.inf
            self._report.tell("resize", f"{self._pod} has no CPU limit, so there is nothing to resize")
            return _SETTLED_S
        self.cpus = has.limit if has.in_effect is None else has.in_effect
        if abs(has.limit - wanted) > _SAME:
            if self.cpus + _SAME < wanted and wanted > self._refused - _SAME and self._clock() < self._refused_until:
                return _SETTLED_S  # so many CPUs, or fewer, were infeasible a short while ago
            self._pod.resize(wanted, has.request_share)
            self._report.tell("resize", f"asked for {wanted:g} CPUs for {self._pod}; {self.cpus:g} in effect")
            return 0.0
        if has.resizing in _TROUBLE:
            text, why = _TROUBLE[has.resizing]
            text = text.format(wanted=wanted, cpus=self.cpus, why=has.message or why)
            if self._report.tell("resize", text, is_problem=True):
                self._report.count("resize_failures", has.resizing)
            if has.resizing != "infeasible":
                return _DEFERRED_S
            self._refused = wanted
            self._refused_until = self._clock() + min(_LONGEST_RETRY_S, _REFUSED_RETRY_S * 2**self._num_refused)
            self._num_refused += 1
            self._pod.resize(self.cpus, has.request_share)  # the spec is to say what the pod has
            return _SETTLED_S
        if has.resizing or abs(self.cpus - wanted) > _SAME:
            return 0.0
        self._num_refused = 0
        self._report.tell("resize", f"{self._pod} has {self.cpus:g} CPUs")
        return _SETTLED_S


def parse_pod(pod: Any, name: str) -> Container:
    """Read one container of a pod as the API server describes it.

    Raises:
        KeyError, TypeError, ValueError: It is no pod.
        PodError: It has no such container, or one that a resize would restart.
    """
    containers = {each["name"]: each for each in pod["spec"]["containers"]}
    if name not in containers:
        known = ", ".join(containers)
        raise PodError("unusable", f"the pod has no container {name}; kubernetes.container is one of: {known}")
    for policy in containers[name].get("resizePolicy") or ():
        if policy["resourceName"] == "cpu" and policy["restartPolicy"] != "NotRequired":
            raise PodError("unusable", f"a resize would restart {name}; set its resizePolicy of cpu to NotRequired")
    resources, status = containers[name].get("resources") or {}, pod.get("status", {})
    statuses = {each["name"]: each for each in status.get("containerStatuses") or ()}
    applied = (statuses.get(name) or {}).get("resources") or resources
    conditions = {each["type"]: each for each in status.get("conditions") or () if each.get("status") == "True"}
    resizing, said = "", conditions.get("PodResizePending") or conditions.get("PodResizeInProgress") or {}
    if "PodResizePending" in conditions:
        resizing = "infeasible" if said.get("reason") == "Infeasible" else "deferred"
    elif said:
        resizing = "error" if said.get("reason") == "Error" else "in progress"
    limit, request = _quantity(resources, "limits", "cpu"), _quantity(resources, "requests", "cpu")
    return Container(
        limit=limit,
        in_effect=_quantity(applied, "limits", "cpu"),
        request_share=request / limit if limit and request is not None else 1.0,
        memory_bytes=_quantity(resources, "limits", "memory"),
        resizing=resizing,
        message=" ".join(str(said.get("message", "")).split()),
    )


def _quantity(resources: Mapping[str, Any], kind: str, resource: str) -> float | None:
    quantity = (resources.get(kind) or {}).get(resource)
    return None if quantity is None else parse_quantity(quantity)


def _api_url(environ: Mapping[str, str]) -> str:
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise ConfigError(
            "KUBERNETES_SERVICE_HOST is not set: this is no pod; set kubernetes.api_url, or leave kubernetes out"
        )
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
