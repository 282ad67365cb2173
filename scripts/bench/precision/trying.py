"""Which methods are tried, and how: a benchmark of many engines goes on where one of them fails in a way of its own."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from bench.precision.measured import BASELINE
from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.methods.catalogue import missing_packages
from ts_handlers.build.trial import OpenEngine
from ts_handlers.calls import ModelCalls
from ts_handlers.errors import OperatorError
from ts_handlers.runtime import Session

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is tried.

    Attributes:
        work_dir: Folder for the engines.
        num_samples: Samples a model is judged on, at most.
        words: Methods with one of these words in their name, and the baseline; empty: all.
    """

    work_dir: Path
    num_samples: int
    words: tuple[str, ...] = ()

    def folders(self, name: str) -> tuple[Path, Path]:
        """Return empty folders of a model: for what its methods share, and for their engines."""
        work = self.work_dir / "precision" / name
        shutil.rmtree(work, ignore_errors=True)
        (work / "engines").mkdir(parents=True)
        return work, work / "engines"

    def choose(self, methods: Sequence[Method]) -> tuple[list[Method], dict[str, str]]:
        """Return the methods to try, and, by name, why others cannot be tried here."""
        left_out = {
            method.name: f"needs {', '.join(missing)}" for method in methods if (missing := missing_packages(method))
        }
        tried = [
            replace(method, make=_guarded_make(method))
            for method in methods
            if method.name not in left_out and (method.name == BASELINE or self._names(method))
        ]
        return tried, left_out

    def _names(self, method: Method) -> bool:
        return not self.words or any(word in method.name.split() for word in self.words)


def guarded_opener(open_engine: OpenEngine) -> OpenEngine:
    """Return a function that opens engines and raises no other error than OperatorError."""

    def guarded(engine: Engine) -> tuple[Session, ModelCalls]:
        return _guarded(lambda: open_engine(engine))

    return guarded


def _guarded_make(method: Method) -> Callable[[Material, Path], Engine]:
    return lambda material, folder: _guarded(lambda: method.make(material, folder))


def _guarded(work: Callable[[], T]) -> T:
    try:
        return work()
    except (OperatorError, MemoryError):
        raise
    except Exception as error:
        traceback.print_exc()
        raise OperatorError(f"{type(error).__name__}: {error}") from error
