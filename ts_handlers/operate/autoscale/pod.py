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
from ts_handlers.operate.autoscale.settings import KubernetesSettings
from ts_handlers.operate.http import Answer, NoAnswerError, send
from ts_handlers.operate.quantity import format_cpus, parse_quantity

_PATCH = "application/strategic-merge-patch+json"

Failure = Literal["unreachable", "unauthorized", "forbidden", "missing", "refused", "unusable"]


class PodError(OperatorError):
    """The API server does not do what it was asked.

    Attributes:
        failure: Why, as a label.
    """

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure: Failure = failure


@dataclass(frozen=True, slots=True)
class ContainerCpus:
    """The serving container as the API server has it.

    Attributes:
        limit: CPUs of its limit in the pod's spec, that is as asked for; None where it has none.
        request: CPUs of its request.
        in_effect: CPUs of the limit that the kubelet has applied; None where it does not say.
        waiting: Why a resize is not carried out: Deferred or Infeasible; None where none waits.
        progress: What a resize that is being carried out says; None where none is.
        message: What Kubernetes says of it.
        memory_bytes: Its memory limit; None where it has none.
    """

    limit: float | None
    request: float | None
    in_effect: float | None
    waiting: str | None = None
    progress: str | None = None
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
        self._namespace = settings.namespace or self._read("namespace", "kubernetes.namespace")
        self._name = settings.pod or environ.get("POD_NAME") or environ.get("HOSTNAME")
        if not self._name:
            raise ConfigError("which pod is this? Set kubernetes.pod, or POD_NAME from metadata.name (downward API)")
        self._api = (settings.api_url or _api_url(environ)).rstrip("/")
        self._request_share: float | None = None

    def describe(self) -> str:
        """Name the pod."""
        return f"container {self._settings.container} of pod {self._namespace}/{self._name}"

    def read(self) -> ContainerCpus:
        """Return what holds for the serving container now.

        Raises:
            PodError: No answer, a refusal, or a pod that cannot be resized.
        """
        answer = self._send("GET", "")
        try:
            cpus = parse_pod(answer.json(), self._settings.container)
        except (KeyError, TypeError, ValueError, NoAnswerError) as error:
            raise PodError("unusable", f"{self.describe()} cannot be understood: {error!r}") from error
        if self._request_share is None and cpus.limit and cpus.request is not None:
            self._request_share = cpus.request / cpus.limit
        return cpus

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
        token = self._read("token", "kubernetes.service_account", failure="unauthorized")
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = _PATCH
        url = f"{self._api}/api/v1/namespaces/{self._namespace}/pods/{self._name}{path}"
        try:
            answer = send(
                method, url, timeout_s=self._settings.timeout_s, headers=headers, body=body, context=self._context()
            )
        except NoAnswerError as error:
            raise PodError("unreachable", f"the API server: {error}") from error
        if answer.status not in (200, 201, 202):
            raise _refusal(answer, f"{method} pods/{self._name}{path}")
        return answer

    def _context(self) -> ssl.SSLContext | None:
        """Trust the cluster's certificate authority, which rotates as well."""
        if not self._api.startswith("https:"):
            return None
        authority = self._account / "ca.crt"
        try:
            return ssl.create_default_context(cafile=str(authority) if authority.exists() else None)
        except (OSError, ssl.SSLError) as error:
            raise PodError("unauthorized", f"{authority} cannot be used: {error}") from error

    def _read(self, name: str, setting: str, *, failure: Failure | None = None) -> str:
        file = self._account / name
        try:
            return file.read_text(encoding="utf-8").strip()
        except OSError as error:
            message = f"cannot read {file}: {error.strerror or error}; is a service account mounted? See {setting}"
            raise (ConfigError(message) if failure is None else PodError(failure, message)) from error


def parse_pod(pod: Any, container: str) -> ContainerCpus:
    """Read one container of a pod as the API server describes it.

    Raises:
        KeyError, TypeError, ValueError: It is no pod.
        PodError: It has no such container, or one that a resize would restart.
    """
    spec, status = pod["spec"], pod.get("status", {})
    named = [each for each in spec["containers"] if each["name"] == container]
    if not named:
        names = ", ".join(each["name"] for each in spec["containers"])
        raise PodError("unusable", f"the pod has no container {container}; kubernetes.container is one of: {names}")
    for policy in named[0].get("resizePolicy") or ():
        if policy["resourceName"] == "cpu" and policy["restartPolicy"] != "NotRequired":
            raise PodError(
                "unusable", f"a resize would restart {container}; set its resizePolicy of cpu to NotRequired"
            )
    resources = named[0].get("resources") or {}
    statuses = {each["name"]: each for each in status.get("containerStatuses") or ()}
    applied = (statuses.get(container) or {}).get("resources") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or () if each.get("status") == "True"}
    pending, progress = conditions.get("PodResizePending"), conditions.get("PodResizeInProgress")
    said = pending or progress or {}
    limit = _of(resources, "limits", "cpu")
    return ContainerCpus(
        limit=limit,
        request=_of(resources, "requests", "cpu"),
        in_effect=_of(applied, "limits", "cpu") if applied else limit,
        waiting=None if pending is None else str(pending.get("reason", "Deferred")),
        progress=None if progress is None else str(progress.get("reason", "")),
        message=" ".join(str(said.get("message", "")).split()),
        memory_bytes=_of(resources, "limits", "memory"),
    )


def _of(resources: Mapping[str, Any], kind: str, resource: str) -> float | None:
    quantity = (resources.get(kind) or {}).get(resource)
    return None if quantity is None else parse_quantity(quantity)


def _refusal(answer: Answer, what: str) -> PodError:
    said = f"status {answer.status}, {answer.message()}"
    if answer.status == 401:
        return PodError("unauthorized", f"the API server does not take the service account's token ({said})")
    if answer.status == 403:
        return PodError(
            "forbidden", f"the service account may not {what} ({said}); it needs get on pods and patch on pods/resize"
        )
    if answer.status == 404:
        return PodError("missing", f"{what}: {said}; is it a pod's name, and Kubernetes 1.33 or newer?")
    return PodError("refused", f"{what}: {said}")


def _api_url(environ: Mapping[str, str]) -> str:
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise ConfigError(
            "KUBERNETES_SERVICE_HOST is not set: this is no pod; set kubernetes.api_url, or leave kubernetes out"
        )
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
