"""A Dockerfile as stages of instructions, variables still in them."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dockerfile_parse import DockerfileParser

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_FROM = re.compile(r"(\S+)(?:\s+[Aa][Ss]\s+(\S+))?")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its name in capitals, and its value on one line."""

    name: str
    value: str

    def words(self) -> list[str]:
        """Return the value of the exec form; of other instructions its words.

        Raises:
            ValueError: It begins as the exec form does and is none.
        """
        if self.value.startswith("["):
            return [str(word) for word in json.loads(self.value)]
        return shlex.split(self.value)


@dataclass(frozen=True, slots=True)
class Copy:
    """A COPY: from where (None: the context), what, to where, and whose it becomes."""

    stage: str | None
    sources: tuple[str, ...]
    target: str
    owner: str | None


@dataclass(frozen=True, slots=True)
class Stage:
    """What is between one FROM and the next.

    Attributes:
        base: The image, or the stage, it starts from.
        name: After AS; the number of the stage where there is none.
        instructions: In order.
    """

    base: str
    name: str
    instructions: tuple[Instruction, ...]

    def last(self, name: str) -> Instruction | None:
        """Return the instruction of this name that is in force in the end."""
        found = [instruction for instruction in self.instructions if instruction.name == name]
        return found[-1] if found else None

    def copies(self) -> list[Copy]:
        """Return its COPY instructions."""
        return [read_copy(instruction) for instruction in self.instructions if instruction.name == "COPY"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole Dockerfile: the ARGs before the first FROM with their defaults, and its stages, the last being the image."""

    arguments: Mapping[str, str]
    stages: tuple[Stage, ...]

    @property
    def image(self) -> Stage:
        """The stage that is built without --target."""
        return self.stages[-1]


def read_recipe(path: Path) -> Recipe:
    """Read a Dockerfile."""
    parser = DockerfileParser(fileobj=io.BytesIO(path.read_bytes()))
    arguments: dict[str, str] = {}
    stages: list[tuple[str, str, list[Instruction]]] = []
    for item in parser.structure:
        name, value = item["instruction"].upper(), item["value"].strip()
        if name == "COMMENT":
            continue
        if name == "FROM":
            base, alias = _read_from(value)
            stages.append((expand(base, arguments), alias or str(len(stages)), []))
        elif not stages:
            key, _, default = value.partition("=")
            arguments[key] = default
        else:
            stages[-1][2].append(Instruction(name, value))
    return Recipe(arguments, tuple(Stage(base, name, tuple(items)) for base, name, items in stages))


def read_copy(instruction: Instruction) -> Copy:
    """Read a COPY; of its options those that are used here."""
    words = instruction.words()
    options = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
    if unknown := set(options) - {"from", "chown"}:
        raise ValueError(f"COPY {instruction.value}: --{unknown.pop()} is not known here; teach it to read_copy")
    *sources, target = [word for word in words if not word.startswith("--")]
    return Copy(options.get("from"), tuple(sources), target, options.get("chown"))


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Put values in the place of $NAME and ${NAME}; a name without one is empty, as Docker has it."""
    return _VARIABLE.sub(lambda match: variables.get(match[1] or match[2], ""), text)


def _read_from(value: str) -> tuple[str, str | None]:
    match = _FROM.fullmatch(value)
    if match is None:
        raise ValueError(f"FROM {value}: not understood; it is IMAGE or IMAGE AS NAME here")
    return match[1], match[2]
