"""Only scripts/test-gpu runs these: a test that is always skipped would say nothing."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("TS_HANDLERS_TEST_GPU") else ["test_*.py"]
