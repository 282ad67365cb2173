"""The keys against TorchServe's own class file: what the installed server reads, not what its documentation says."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator

from ts_handlers.operate.torchserve.keys import KNOWN
from ts_handlers.operate.torchserve.process.frontend import torchserve_folder

_SIZES = {3: 4, 4: 4, 5: 8, 6: 8, 7: 2, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4, 15: 3, 16: 2, 17: 4, 18: 4, 19: 2, 20: 2}
"""Bytes of the entries of a constant pool, by tag; 1 is text and 8 a String."""

_NO_KEYS = {"MODEL_METRICS_LOGGER", "MODEL_LOGGER", "MODEL_SERVER_METRICS_LOGGER", "MODEL_SERVER_TELEMETRY_LOGGER"}
_NO_KEYS |= {"METRIC_FORMAT_PROMETHEUS", "DEFAULT_TS_ALLOWED_URLS"}
_NO_KEYS |= {"DEFAULT_REQUEST_SEQUENCE_ID", "DEFAULT_REQUEST_SEQUENCE_START", "DEFAULT_REQUEST_SEQUENCE_END"}


def string_constants(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield (field, value) of the static final Strings of a class file."""
    (count,) = struct.unpack_from(">H", data, 8)
    texts, strings, offset, index = {}, {}, 10, 1
    while index < count:
        tag = data[offset]
        if tag == 1:
            (size,) = struct.unpack_from(">H", data, offset + 1)
            texts[index] = data[offset + 3 : offset + 3 + size].decode()
            offset += 3 + size
        else:
            if tag == 8:
                (strings[index],) = struct.unpack_from(">H", data, offset + 1)
            offset += 1 + _SIZES[tag]
        index += 2 if tag in (5, 6) else 1
    (interfaces,) = struct.unpack_from(">H", data, offset + 6)
    offset += 8 + 2 * interfaces
    (fields,) = struct.unpack_from(">H", data, offset)
    offset += 2
    for _ in range(fields):
        _, name, _, attributes = struct.unpack_from(">HHHH", data, offset)
        offset += 8
        for _ in range(attributes):
            kind, size = struct.unpack_from(">HI", data, offset)
            (value,) = struct.unpack_from(">H", data, offset + 6)
            if texts[kind] == "ConstantValue" and value in strings:
                yield texts[name], texts[strings[value]]
            offset += 6 + size


def test_the_known_keys_are_those_of_the_installed_torchserve() -> None:
    (jar,) = (torchserve_folder() / "frontend").glob("*.jar")
    with zipfile.ZipFile(jar) as archive:
        constants = dict(string_constants(archive.read("org/pytorch/serve/util/ConfigManager.class")))
    fields = {field: key for field, key in constants.items() if field not in _NO_KEYS}

    by_python = {"vmargs", "plugins_path"}
    assert set(KNOWN) - by_python == set(fields.values())
    variables = {key: field for field, key in fields.items() if field.startswith("TS_")}
    assert {key: known.variable for key, known in KNOWN.items() if known.variable} == variables
