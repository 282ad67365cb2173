"""A real Prometheus on 127.0.0.1, and promtool."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from ts_handlers.operate.torchserve.process.ports import free_ports

Element = tuple[dict[str, str], float]
"""Labels and value of one element of an instant vector."""


def find_program(name: str) -> str:
    """Return the path of prometheus or promtool; the test is skipped where there is none."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not on PATH (scripts/test brings Debian's)")
    return path


def quick_rules(text: str, windows: Mapping[str, str]) -> str:
    """Return rules with other windows, evaluated every second: a test cannot wait for minutes. Names stay."""
    for window, shorter in windows.items():
        text = text.replace(f"[{window}]", f"[{shorter}]")
    return re.sub(r"interval: \w+", "interval: 1s", text)


class Prometheus:
    """A Prometheus with given rules and scrapes; a context manager that ends it.

    Args:
        folder: Where its files go.
        rules: Texts of rule files.
        scrapes: Its scrape_configs, scraped every second.
    """

    def __init__(self, folder: Path, rules: Sequence[str], scrapes: Sequence[Mapping[str, Any]]) -> None:
        self._program = find_program("prometheus")
        self._folder = folder
        self._address = f"127.0.0.1:{free_ports(1)[0]}"
        names = [f"rules-{number}.yml" for number in range(len(rules))]
        for name, text in zip(names, rules, strict=True):
            (folder / name).write_text(text, encoding="utf-8")
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": names,
            "scrape_configs": list(scrapes),
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")

    def __enter__(self) -> Prometheus:  # noqa: PYI034 (typing.Self needs Python 3.11)
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    f"--config.file={self._folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address={self._address}",
                ],
                env={**os.environ, "GOMAXPROCS": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of the HTTP API."""
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.load(response)["data"]

    def query(self, expression: str) -> list[Element]:
        """Return the elements of an expression now, as KEDA and Grafana ask for them."""
        result = self.get("query", query=expression)["result"]
        return [(found["metric"], float(found["value"][1])) for found in result]

    def value(self, expression: str) -> float | None:
        """Return the value of the one element of an expression; None where there is not one."""
        elements = self.query(expression)
        return elements[0][1] if len(elements) == 1 else None

    def wait_until(self, is_so: Callable[[Prometheus], bool], what: str, timeout_s: float = 60) -> None:
        """Wait until something is so.

        Raises:
            AssertionError: It is not, in time; or Prometheus has ended.
        """
        deadline = time.monotonic() + timeout_s
        while not self._holds(is_so):
            log = (self._folder / "prometheus.log").read_text(encoding="utf-8", errors="replace")
            assert self._process.poll() is None, log[-2000:]
            assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s\n{log[-2000:]}"
            time.sleep(0.2)

    def _holds(self, is_so: Callable[[Prometheus], bool]) -> bool:
        try:
            return is_so(self)
        except OSError:  # it does not listen yet
            return False
