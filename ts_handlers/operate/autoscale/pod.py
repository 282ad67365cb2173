"""This pod on the API server: what its serving container may take, and the resize that asks for another number of CPUs."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ts_handlers.errors import ConfigError, OperatorError
from ts_handlers.operate.autoscale.http import Answer, NoAnswerError, send
from ts_handlers.operate.autoscale.settings import KubernetesSettings
from ts_handlers.operate.quantity import format_cpus, parse_quantity

Resizing = Literal["deferred", "infeasible", "error", "in progress"]

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
        request: CPUs of its request.
        in_effect: CPUs of the limit that the kubelet has applied, or of the spec where it does not say.
        resizing: What has become of a resize; None where none is left to do.
        message: What Kubernetes says of it.
        memory_bytes: Its memory limit; None where it has none.
    """

    limit: float | None
    request: float | None
    in_effect: float | None
    resizing: Resizing | None = None
    message: str = ""
    memory_bytes: float | None = None


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
        self._name, api_url = name, settings.api_url or _api_url(environ)
        self._url = f"{api_url.rstrip('/')}/api/v1/namespaces/{namespace}/pods/{name}"
        self._description = f"container {settings.container} of pod {namespace}/{name}"
        self._request_share: float | None = None

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
            container = parse_pod(answer.json(), self._settings.container)
        except (KeyError, TypeError, ValueError, NoAnswerError) as error:
            raise PodError("unusable", f"{self} cannot be understood: {error!r}") from error
        if self._request_share is None and container.limit and container.request is not None:
            self._request_share = container.request / container.limit
        return container

    def resize(self, cpus: float) -> None:
        """Ask for another CPU limit; the request keeps its share of it, so that the pod keeps its quality of service.

        Raises:
            PodError: No answer, or a refusal.
        """
        share = 1.0 if self._request_share is None else self._request_share
        resources = {"requests": {"cpu": format_cpus(cpus * share)}, "limits": {"cpu": format_cpus(cpus)}}
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
        said = f"status {answer.status}, {answer.message()}"
        raise PodError(failure, text.format(what=f"{method} pods/{self._name}{path}", said=said))

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
        file = self._account / name
        try:
            return file.read_text(encoding="utf-8").strip()
        except OSError as error:
            reason = error.strerror or error
            raise PodError(
                "unauthorized",
                f"cannot read {file}: {reason}; is a service account mounted (kubernetes.service_account)?",
            ) from error


def parse_pod(pod: Any, name: str) -> Container:
    """Read one container of a pod as the API server describes it.

    Raises:
        KeyError, TypeError, ValueError: It is no pod.
        PodError: It has no such container, or one that a resize would restart.
    """
    spec, status = pod["spec"], pod.get("status", {})
    containers = {each["name"]: each for each in spec["containers"]}
    if name not in containers:
        known = ", ".join(containers)
        raise PodError("unusable", f"the pod has no container {name}; kubernetes.container is one of: {known}")
    for policy in containers[name].get("resizePolicy") or ():
        if policy["resourceName"] == "cpu" and policy["restartPolicy"] != "NotRequired":
            raise PodError("unusable", f"a resize would restart {name}; set its resizePolicy of cpu to NotRequired")
    resources = containers[name].get("resources") or {}
    statuses = {each["name"]: each for each in status.get("containerStatuses") or ()}
    applied = (statuses.get(name) or {}).get("resources") or resources
    conditions = {each["type"]: each for each in status.get("conditions") or () if each.get("status") == "True"}
    resizing: Resizing | None = None
    pending, progress = conditions.get("PodResizePending"), conditions.get("PodResizeInProgress")
    if pending is not None:
        resizing = "infeasible" if pending.get("reason") == "Infeasible" else "deferred"
    elif progress is not None:
        resizing = "error" if progress.get("reason") == "Error" else "in progress"
    return Container(
        limit=_quantity(resources, "limits", "cpu"),
        request=_quantity(resources, "requests", "cpu"),
        in_effect=_quantity(applied, "limits", "cpu"),
        resizing=resizing,
        message=" ".join(str((pending or progress or {}).get("message", "")).split()),
        memory_bytes=_quantity(resources, "limits", "memory"),
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
