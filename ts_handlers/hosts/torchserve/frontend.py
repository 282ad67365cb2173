"""What a worker can find out of the frontend's settings: TorchServe tells it none of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from ts_handlers.config.sections import DEFAULT_BODY_BYTES, RESPONSE_ENV
from ts_handlers.errors import ConfigError

_MAIN_CLASS = "org.pytorch.serve.ModelServer"
_CONFIG_OPTIONS = ("-f", "--ts-config-file")
_MAX_ANCESTORS = 3
"""The frontend is a worker's parent; torch's launcher may stand between them."""

_SETTING = re.compile(r"^[ \t\f]*max_response_size[ \t\f]*[=: \t\f][ \t\f]*(\d{1,10})[ \t\f]*$", re.MULTILINE)


def max_response_bytes(environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> int:
    """Return the largest answer the frontend takes: by the environment, else its configuration, else TorchServe's default.

    Args:
        environ: The worker's environment.
        root: Where /proc is.

    Raises:
        ConfigError: TS_HANDLERS_MAX_RESPONSE_SIZE is no positive integer.
    """
    text = environ.get(RESPONSE_ENV)
    if text is None:
        return _configured(root) or DEFAULT_BODY_BYTES
    text = text.strip()
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) < 1:
        raise ConfigError(f"{RESPONSE_ENV} is {text[:40]!r}; write max_response_size, a number of bytes")
    return int(text)


def _configured(root: Path) -> int | None:
    """Return max_response_size of the file that the frontend's command line names, where both are to be seen."""
    for pid, words in _ancestors(root):
        if _MAIN_CLASS in words:
            named = [file for option, file in pairwise(words) if option in _CONFIG_OPTIONS]
            try:
                text = (root / f"proc/{pid}/cwd" / named[-1]).read_text(encoding="iso-8859-1") if named else ""
            except OSError:  # another user's, or it is gone
                return None
            found = _SETTING.findall(text)
            return int(found[-1]) if found else None
    return None


def _ancestors(root: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield parents of this process, the nearest first, with the words of their command lines."""
    pid = os.getppid()
    for _ in range(_MAX_ANCESTORS):
        try:
            command = (root / f"proc/{pid}/cmdline").read_bytes()
            stat = (root / f"proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # outside this PID namespace
            return
        yield pid, command.decode(errors="replace").split("\0")
        pid = int(stat.rpartition(")")[2].split()[1])  # field 4, proc(5); the name in brackets may hold spaces
