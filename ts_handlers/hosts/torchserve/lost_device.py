"""The end of a worker that has lost its GPU: it would stay READY and answer 500 to whatever it is asked.

TorchServe starts another worker as soon as the process is gone, and answers the batch that it had with 500. A worker that
answered that batch itself would be sent the next one while it ends, and would lose that, too.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

from ts_handlers.errors import DeviceLostError

logger = logging.getLogger(__name__)


def end_worker(error: DeviceLostError) -> NoReturn:
    """End this process at once: what it would close in an orderly end can wait for the GPU for ever."""
    logger.critical("ts_handlers: this worker ends, its GPU cannot be used by it any longer: %s", error.message)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
