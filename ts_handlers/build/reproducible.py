"""An archive written anew so that the same files give the same bytes: no clock, no folder order, no umask."""

from __future__ import annotations

import json
import os
import shutil
import stat
import zipfile
from datetime import datetime, timezone
from pathlib import Path

from ts_handlers.errors import OperatorError

VARIABLE = "SOURCE_DATE_EPOCH"
"""Seconds since 1970 that stand for now (https://reproducible-builds.org/specs/source-date-epoch/)."""

MANIFEST = "MAR-INF/MANIFEST.json"
_CREATED_ON = "%d/%m/%Y %H:%M:%S"
_FIRST, _LAST = datetime(1980, 1, 1, tzinfo=timezone.utc), datetime(2107, 12, 31, 23, 59, 58, tzinfo=timezone.utc)
"""Dates a zip can hold."""
_ATTRIBUTES = (stat.S_IFREG | 0o644) << 16
_UNIX = 3
_BLOCK_BYTES = 2**20


def rewrite(mar: Path) -> None:
    """Write an archive anew: entries by name, deflated at zlib's default level, all of one date and of mode 0644.

    Equal bytes need an equal zlib too: zlib-ng, say, deflates otherwise.

    Raises:
        OperatorError: SOURCE_DATE_EPOCH is no date.
    """
    created = creation_time()
    rewritten = mar.with_name(f"{mar.name}.rewritten")
    with zipfile.ZipFile(mar) as old, zipfile.ZipFile(rewritten, "w") as new:
        for name in sorted(old.namelist()):
            if name == MANIFEST:
                new.writestr(_entry(name, created), _dated(old.read(name), created))
                continue
            entry = _entry(name, created)
            entry.file_size = old.getinfo(name).file_size  # decides whether the entry is written as zip64
            with old.open(name) as content, new.open(entry, "w") as target:
                shutil.copyfileobj(content, target, _BLOCK_BYTES)
    rewritten.replace(mar)


def creation_time() -> datetime:
    """Return what an archive says it was made at: SOURCE_DATE_EPOCH in UTC, without it the first date a zip can hold.

    Raises:
        OperatorError: SOURCE_DATE_EPOCH is no number of seconds, or a date that a zip cannot hold.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        return _FIRST
    try:
        when = datetime.fromtimestamp(int(text), timezone.utc)
    except (ValueError, OverflowError, OSError) as error:
        raise OperatorError(f"{VARIABLE} is {text!r}; give seconds since 1970, or unset it") from error
    if not _FIRST <= when <= _LAST:
        raise OperatorError(f"{VARIABLE} is {text}, in {when.year}; an archive's dates are from 1980 to 2107")
    return when


def _entry(name: str, created: datetime) -> zipfile.ZipInfo:
    date = created.year, created.month, created.day, created.hour, created.minute, created.second
    entry = zipfile.ZipInfo(name, date)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = _UNIX
    entry.external_attr = _ATTRIBUTES
    return entry


def _dated(manifest: bytes, created: datetime) -> bytes:
    content = json.loads(manifest)
    content["createdOn"] = created.strftime(_CREATED_ON)
    return json.dumps(content, indent=2).encode()
