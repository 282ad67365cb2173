from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROBE = """
import json, logging, os, sys
import numpy, torch
logging.basicConfig(level=logging.INFO)
from ts_handlers.machine import change_threads, limit_threads
limit_threads(int(sys.argv[1]))
for threads in sys.argv[2:]:
    torch.randn(600, 600) @ torch.randn(600, 600)
    change_threads(int(threads))
from threadpoolctl import threadpool_info
torch.randn(600, 600) @ torch.randn(600, 600)
numpy.ones((600, 600)) @ numpy.ones((600, 600))
print(json.dumps({
    "intra": torch.get_num_threads(), "inter": torch.get_num_interop_threads(),
    "pools": [pool["num_threads"] for pool in threadpool_info()],
    "env": [os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")],
    "tokenizers": os.environ["TOKENIZERS_PARALLELISM"],
}))
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_limits_hold_in_a_fresh_process(threads: int) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROBE, str(threads)], capture_output=True, text=True, check=True, timeout=120
    )
    seen = json.loads(result.stdout)
    assert (seen["intra"], seen["inter"]) == (threads, threads)
    assert set(seen["pools"]) == {threads}
    assert seen["env"] == [str(threads)] * 3
    assert seen["tokenizers"] == ("true" if threads > 1 else "false")


def test_a_running_process_takes_another_number() -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROBE, "1", "3", "2"], capture_output=True, text=True, check=True, timeout=120
    )
    seen = json.loads(result.stdout)
    assert (seen["intra"], seen["inter"]) == (2, 1)
    assert set(seen["pools"]) == {2}
    assert result.stderr.count("torch keeps 1 inter-op threads") == 1
