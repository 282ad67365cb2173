"""A number of images, posted to a server by clients that each wait for their answer; and their best labels."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from urllib.parse import urlsplit

TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of the images.

    Attributes:
        wall_s: From the first request to the last answer.
        num_errors: Answers that were not 200, or no JSON object.
        labels: Index of a body -> its best label.
    """

    wall_s: float
    num_errors: int
    labels: Mapping[int, str]


def send_images(
    url: str, bodies: Sequence[bytes], num_images: int, clients: int, ended: threading.Event | None = None
) -> Sent:
    """Post so many images, the bodies in turn; or fewer, if `ended` is set before."""
    labels: dict[int, str] = {}
    numbers = count()  # next() of it is atomic
    ended = ended or threading.Event()
    taken = iter(lambda: num_images if ended.is_set() else next(numbers), num_images)
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        errors = list(pool.map(lambda _: _client(url, bodies, taken, labels), range(clients)))
    return Sent(time.perf_counter() - started, sum(errors), labels)


def _client(url: str, bodies: Sequence[bytes], numbers: Iterator[int], labels: dict[int, str]) -> int:
    """Post an image for each number; return how many failed."""
    parts = urlsplit(url)
    num_errors = 0
    with closing(http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=TIMEOUT_S)) as connection:
        for number in numbers:
            index = number % len(bodies)
            label = _best_label(connection, parts.path, bodies[index])
            if label is None:
                num_errors += 1
            else:
                labels[index] = label
    return num_errors


def _best_label(connection: http.client.HTTPConnection, path: str, body: bytes) -> str | None:
    try:
        connection.request("POST", path, body=body, headers={"Content-Type": "image/jpeg"})
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        connection.close()  # the next request opens another
        return None
    if response.status != 200 or not isinstance(answer, dict) or not answer:
        return None
    return str(max(answer, key=answer.__getitem__))
