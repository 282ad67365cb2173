"""A configured store that a test changes in one place, and what the check says of it then."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ts_handlers.machine import CpuBudget
from ts_handlers.operate.check import find_all
from ts_handlers.operate.check.finding import Finding
from ts_handlers.operate.check.server import HERE, Place, gather
from ts_handlers.operate.machine import Machine
from ts_handlers.operate.torchserve import properties

YAML = "responseTimeout: 120\nstartupTimeout: 300\nhandler:\n  task: text-classification\n"
MACHINE = Machine(CpuBudget((0, 1)), num_node_cpus=2, memory_mb=8192, python="python")
IN_POD = replace(MACHINE, budget=CpuBudget((0, 1, 2, 3), 2.0), num_node_cpus=64)
LAUNCHER = {"cpu_launcher_enable": "true", "cpu_launcher_args": "--core-list 0,1 --ncores-per-instance 1"}


@dataclass
class Site:
    """A configured store, and what a test changes of it.

    Attributes:
        store: The folder.
        values: The properties configure wrote; None for a value removes the line.
        head: What stands before them.
        tail: More lines, as they are.
        environ: The environment.
        machine: The machine that serves.
        place: Where the server's files are.
    """

    store: Path
    values: dict[str, str | None]
    head: str = ""
    tail: str = ""
    environ: dict[str, str] = field(default_factory=dict)
    machine: Machine = MACHINE
    place: Place = HERE

    def findings(self) -> list[Finding]:
        lines = [properties.Entry(key, value) for key, value in self.values.items() if value is not None]
        text = self.head + properties.render(lines) + self.tail
        return find_all(gather(self.store / "config.properties", self.environ, self.machine, self.place, text=text))

    def models(self, **changes: Any) -> None:
        """Change the entry of the one model; ... removes a key."""
        models = json.loads(str(self.values["models"]))
        entry = models["mini"]["1.0"] | changes
        models["mini"]["1.0"] = {key: value for key, value in entry.items() if value is not ...}
        self.values["models"] = json.dumps(models)


def expect(site: Site, severity: str, key: str, words: str) -> None:
    found = site.findings()
    meant = [one for one in found if one.key == key and words in one.describe()]
    assert [one.severity for one in meant] == [severity], [one.describe() for one in found]
    assert meant[0].remedy
