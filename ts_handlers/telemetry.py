"""What libraries would send to their makers about a worker or a build."""

from __future__ import annotations

import os
import sys
from types import ModuleType


def disable_telemetry() -> None:
    """Turn the telemetry of ONNX Runtime, OpenVINO and NNCF off in this process; call it before they are imported.

    A pod has no business with their hosts, and a worker no CPU time to spare. ONNX Runtime 1.29 and newer has a thread
    that uploads and files in ~/.cache/Microsoft; OpenVINO forks a process for each message and has files in ~/intel.
    An operator who sets ORT_DISABLE_TELEMETRY is not overruled.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]  # None: as if it were not installed
    modules.setdefault("openvino_telemetry", None)  # what imports it does without, and has no variable for that
