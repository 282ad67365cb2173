"""What an archive is asked, and what the source's own library answers to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Expected:
    """One request and its right answer.

    Attributes:
        payload: The request: a str, or anything JSON.
        answer: What the source answers, in the form that the archive has.
        length: Tokens of a text, or pixels of a picture.
        shown: The request in a few words, for errors.
    """

    payload: Any
    answer: Any
    length: int
    shown: str
