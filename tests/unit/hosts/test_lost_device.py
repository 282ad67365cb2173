from __future__ import annotations

import subprocess
import sys

END = """
import logging
logging.basicConfig(format="%(message)s")
from ts_handlers.errors import DeviceLostError
from ts_handlers.hosts.torchserve.lost_device import end_worker
try:
    end_worker(DeviceLostError("the model run failed with RuntimeError"))
finally:
    print("an orderly end")
"""


def test_a_worker_ends_at_once_and_says_why() -> None:
    result = subprocess.run([sys.executable, "-c", END], capture_output=True, text=True, check=False, timeout=120)
    assert (result.returncode, result.stdout) == (1, "")
    assert "this worker ends, its GPU cannot be used by it any longer: the model run failed" in result.stderr
