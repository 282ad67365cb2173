"""results.json: what was measured, for what and where; written after every trial, and read to go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ts_handlers.errors import OperatorError
from ts_handlers.operate.replacing import replacing
from ts_handlers.operate.tune.objective import Measurement, Objective, Verdict
from ts_handlers.operate.tune.space import Setting
from ts_handlers.reading import load_json

RESULTS_NAME = "results.json"
FORMAT = "ts-handlers tune 1"


@dataclass(frozen=True, slots=True)
class Trial:
    """One server that was started and measured.

    Attributes:
        setting: What it was started with.
        rung: Round of the search, from 0; None in the final comparison.
        seconds: How long it was measured; 0 if it was not.
        start_s: Seconds until every worker was ready.
        total_s: Seconds from start to end.
        measured: What was measured; None where it failed.
        reason: Why it failed; None where it did not.
    """

    setting: Setting
    rung: int | None
    seconds: float
    start_s: float
    total_s: float
    measured: Measurement | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a search.

    Attributes:
        choice: The setting that was chosen.
        contender: The best of the others; None where none of them could be measured.
        verdict: The final comparison; None where there was none.
        is_met: Whether the choice meets the objective.
    """

    choice: Setting
    contender: Setting | None
    verdict: Verdict | None
    is_met: bool


@dataclass(frozen=True, slots=True)
class Subject:
    """What the figures are of: they are comparable only if all of it is the same.

    Attributes:
        model: Name and version of the model.
        archive_sha256: Digest of the .mar file.
        payloads_sha256: Digest of what was sent.
        load: How it was sent.
        machine: CPU, memory and versions.
    """

    model: str
    archive_sha256: str
    payloads_sha256: str
    load: Mapping[str, float | None]
    machine: Mapping[str, str]

    def differences(self, other: Subject) -> list[str]:
        """Name what differs, in words."""
        pairs = {
            "the archive": (self.archive_sha256, other.archive_sha256),
            "the payloads": (self.payloads_sha256, other.payloads_sha256),
        }
        for kind in ("load", "machine"):
            mine, theirs = getattr(self, kind), getattr(other, kind)
            for key in sorted({*mine, *theirs}):
                pairs[f"{key} ({theirs.get(key)} there)"] = (mine.get(key), theirs.get(key))
        return [name for name, (mine, theirs) in pairs.items() if mine != theirs]


@dataclass
class Results:
    """Everything that is known, and its file.

    Attributes:
        path: The results.json.
        subject: What the figures are of.
        default: What `configure` chooses.
        objective: What is looked for.
        trials: Every trial, in order.
        outcome: What came of it; None while the search runs or if it was interrupted.
    """

    path: Path
    subject: Subject
    default: Setting
    objective: Objective
    trials: list[Trial] = field(default_factory=list)
    outcome: Outcome | None = None

    @property
    def final(self) -> list[Trial]:
        """The blocks of the final comparison."""
        return [trial for trial in self.trials if trial.rung is None]

    @property
    def num_settings(self) -> int:
        """Settings that were tried."""
        return len({trial.setting for trial in self.trials})

    def add(self, trial: Trial) -> None:
        """Keep a trial, in the file as well."""
        self.trials.append(trial)
        self.write()

    def write(self) -> None:
        """Replace the file in one step.

        Raises:
            OperatorError: Its folder may not be written.
        """
        content = {"format": FORMAT, **{name: _plain(getattr(self, name)) for name in _FIELDS}}
        with replacing(self.path) as part:
            part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


_FIELDS = ("subject", "default", "objective", "outcome", "trials")


def read_results(path: Path) -> Results:
    """Read a results.json.

    Raises:
        OperatorError: It was not written by this version of `tune`.
    """
    try:
        content = load_json(path)
        if content["format"] == FORMAT:
            return _results(path, content)
        reason = f"its format is {content['format']!r}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise OperatorError(
        f"{path} was not written by this version of tune ({reason}); choose another --output, or start over with --force"
    )


def _results(path: Path, content: Mapping[str, Any]) -> Results:
    return Results(
        path=path,
        subject=Subject(**content["subject"]),
        default=Setting(**content["default"]),
        objective=Objective(**content["objective"]),
        trials=[_trial(each) for each in content["trials"]],
        outcome=_outcome(content["outcome"]),
    )


def _trial(content: Mapping[str, Any]) -> Trial:
    measured = content["measured"] and Measurement(**content["measured"])
    return Trial(**{**content, "setting": Setting(**content["setting"]), "measured": measured})


def _outcome(content: Mapping[str, Any] | None) -> Outcome | None:
    if content is None:
        return None
    return Outcome(
        choice=Setting(**content["choice"]),
        contender=content["contender"] and Setting(**content["contender"]),
        verdict=content["verdict"] and Verdict(**content["verdict"]),
        is_met=content["is_met"],
    )


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return None if value is None else asdict(value)
