"""Keys of a preprocessor_config.json with their types; every error names the file, the key and what was found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ts_handlers.errors import ConfigError
from ts_handlers.imaging.preprocessing import Channels

BILINEAR, BICUBIC = 2, 3
FILTERS: Mapping[str, int] = {
    "nearest": 0,
    "lanczos": 1,
    "bilinear": BILINEAR,
    "bicubic": BICUBIC,
    "box": 4,
    "hamming": 5,
}
"""Names of timm and torchvision -> Pillow's numbers, which transformers writes."""


class Reader:
    """Reads keys of a mapping with their types, and remembers where they are for the errors."""

    def __init__(self, values: Mapping[str, Any], name: str) -> None:
        self.values, self.name = values, name

    def flag(self, key: str) -> bool:
        """Return true or false; null, and what is not there, is false."""
        value = self.values.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self.error(key, "true or false")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a finite number."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.error(key, "a number")
        return float(value)

    def channels(self, key: str, *, positive: bool = False) -> Channels:
        """Return three numbers, one for each of red, green and blue; one number counts for all."""
        value = self.values.get(key)
        items: list[Any] = value if isinstance(value, list) else [value] * 3
        if len(items) != 3 or not all(type(item) in (int, float) and math.isfinite(item) for item in items):
            raise self.error(key, "three numbers, one for each of red, green and blue")
        if positive and min(items) <= 0:
            raise self.error(key, "three numbers above 0")
        return float(items[0]), float(items[1]), float(items[2])

    def edge(self, value: Any, key: str) -> int:
        """Return a size in pixels."""
        if type(value) is not int or not 0 < value < 65536:
            raise self.error(key, "sizes in pixels, above 0")
        return value

    def square(self, key: str) -> int:
        """Read an edge that is written as a number, as [number], or as two equal ones."""
        value = self.values.get(key)
        items = value if isinstance(value, list) else [value]
        if len(items) not in (1, 2) or len(set(map(str, items))) != 1:
            raise self.error(key, "one size in pixels")
        return self.edge(items[0], key)

    def filter(self, key: str, default: int | None = None) -> int:
        """Return Pillow's number of a filter, which a file names or numbers."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, str) and value.lower() in FILTERS:
            return FILTERS[value.lower()]
        if type(value) is not int or value not in FILTERS.values():
            raise self.error(key, f"one of 0 to 5, or of {', '.join(FILTERS)}")
        return value

    def only(self, known: Sequence[str], ignored: Sequence[str]) -> None:
        """Refuse keys that are neither known nor without effect on pixels."""
        for key in self.values:
            if key not in known and key not in ignored:
                raise ConfigError(
                    f"{self.name}: {key} is not known, and pictures might come out otherwise than the model was trained on; "
                    f"remove it if it changes no pixel. Known: {', '.join(known)}"
                )

    def error(self, key: str, wanted: str) -> ConfigError:
        """Return the error of a key whose value is another than wanted."""
        return ConfigError(f"{self.name}: {key} is {self.values.get(key)!r}; it must be {wanted}")
