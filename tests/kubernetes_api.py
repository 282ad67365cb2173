"""A fake Kubernetes API server over real HTTPS: one pod, and a kubelet that does with a resize what the test says.

No cluster runs here. What it answers has the form of Kubernetes 1.33 and later (pods/resize, PodResizePending,
PodResizeInProgress); nothing in it checks that a real cluster would.
"""

from __future__ import annotations

import copy
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import trustme

Mode = Literal["accept", "defer", "infeasible", "error", "forbidden", "invalid", "slow", "broken"]

RESIZE = "/api/v1/namespaces/models/pods/server-0/resize"
POD = "/api/v1/namespaces/models/pods/server-0"


class FakeKubernetes:
    """The API server and the kubelet of one pod.

    Attributes:
        mode: What becomes of a resize.
        token: The token that is taken.
        pod: The pod as it is answered.
        requests: (method, path, body) of every request that was allowed.
        num_refused: Requests whose token was not taken.
        looks_to_apply: GETs after which an accepted resize is in effect.
        on_applied: Called with the CPUs that are in effect then, as the kubelet would write a cgroup.
    """

    def __init__(self, account: Path, cpu: str = "1", memory: str = "4Gi") -> None:
        self.mode: Mode = "accept"
        self.token = "first"
        self.account = account
        self.requests: list[tuple[str, str, Any]] = []
        self.num_refused = 0
        self.looks_to_apply = 1
        self.on_applied: Callable[[str], None] = lambda _: None
        self.port = 0
        self._lock = threading.Lock()
        self._looks_left = 0
        resources = {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}}
        policies = [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]
        self.pod: dict[str, Any] = {
            "kind": "Pod",
            "metadata": {"name": "server-0", "namespace": "models"},
            "spec": {
                "containers": [
                    {"name": "torchserve", "resources": copy.deepcopy(resources), "resizePolicy": policies},
                    {"name": "other", "resources": {}},
                ]
            },
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "torchserve", "resources": copy.deepcopy(resources)}],
            },
        }
        (account / "namespace").write_text("models")
        (account / "token").write_text(self.token)

    @property
    def container(self) -> dict[str, Any]:
        """The serving container of the pod's spec."""
        return dict(self.pod["spec"]["containers"][0])

    @property
    def spec_cpu(self) -> str:
        """The CPU limit that was asked for."""
        return str(self.pod["spec"]["containers"][0]["resources"]["limits"]["cpu"])

    @property
    def cpu_in_effect(self) -> str:
        """The CPU limit that the kubelet has applied."""
        return str(self.pod["status"]["containerStatuses"][0]["resources"]["limits"]["cpu"])

    @property
    def patches(self) -> list[str]:
        """The CPU limits that were asked for, in order."""
        return [
            body["spec"]["containers"][0]["resources"]["limits"]["cpu"]
            for method, _, body in self.requests
            if method == "PATCH"
        ]

    def rotate_token(self, token: str) -> None:
        """Expire the token; the mounted file has the new one."""
        self.token = token
        (self.account / "token").write_text(token)

    def answer(self, method: str, path: str, token: str, content_type: str, body: Any) -> tuple[int, Any]:
        """Return status and body of one request."""
        if self.mode == "slow":
            time.sleep(1.0)
        with self._lock:
            if self.mode == "broken":
                return 500, {"message": "etcdserver: request timed out"}
            if token != f"Bearer {self.token}":
                self.num_refused += 1
                return 401, {"kind": "Status", "message": "Unauthorized", "code": 401}
            if (method, path) == ("GET", POD):
                self.requests.append((method, path, None))
                self._kubelet()
                return 200, self.pod
            if (method, path) == ("PATCH", RESIZE) and content_type == "application/strategic-merge-patch+json":
                return self._patch(body)
            return 404, {"kind": "Status", "message": f"{path} not found", "code": 404}

    def _patch(self, body: Any) -> tuple[int, Any]:
        if self.mode == "forbidden":
            message = 'pods "server-0" is forbidden: cannot patch resource "pods/resize"'
            return 403, {"kind": "Status", "message": message, "code": 403}
        if self.mode == "invalid":
            return 422, {
                "kind": "Status",
                "message": "Pod QOS Class may not change as a result of resizing",
                "code": 422,
            }
        self.requests.append(("PATCH", RESIZE, body))
        (wanted,) = body["spec"]["containers"]
        for container in self.pod["spec"]["containers"]:
            if container["name"] == wanted["name"]:
                for kind, quantities in wanted["resources"].items():
                    container["resources"].setdefault(kind, {}).update(quantities)
        self._looks_left = self.looks_to_apply
        self._kubelet()
        return 200, self.pod

    def _kubelet(self) -> None:
        """Bring the status after the spec, as the mode has it."""
        status = self.pod["status"]
        status["conditions"] = [each for each in status["conditions"] if not each["type"].startswith("PodResize")]
        if not self.container["resources"] or self.spec_cpu == self.cpu_in_effect:
            return
        if self.mode == "accept" and self._looks_left <= 0:
            limits = copy.deepcopy(self.container["resources"])
            status["containerStatuses"][0]["resources"] = limits
            self.on_applied(self.spec_cpu)
            return
        self._looks_left -= 1
        if self.mode in ("defer", "infeasible"):
            reason = "Deferred" if self.mode == "defer" else "Infeasible"
            condition = {"type": "PodResizePending", "reason": reason, "message": f"Node didn't have {self.spec_cpu}"}
        elif self.mode == "error":
            condition = {"type": "PodResizeInProgress", "reason": "Error", "message": "cgroup write failed"}
        else:
            condition = {"type": "PodResizeInProgress"}
        status["conditions"].append({"status": "True", **condition})


@contextmanager
def serve_kubernetes(fake: FakeKubernetes) -> Iterator[str]:
    """Serve it on 127.0.0.1 with a certificate of an authority of its own, in ca.crt; yield its URL."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(fake.account / "ca.crt"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    class Handler(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            token = self.headers.get("Authorization", "")
            status, answer = fake.answer(self.command, self.path, token, self.headers.get("Content-Type", ""), body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PATCH = handle_one  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            """Be quiet."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            """A client that has given up is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
