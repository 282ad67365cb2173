"""Do what a Dockerfile says, instruction by instruction, in roots made from a folder that stands in for its base image."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from docker.utils import exclude_paths

from docker_steps.jail import ROOT_USER, Jail
from docker_steps.recipe import Copy, Instruction, Recipe, Stage, expand, read_copy

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_NOTES = frozenset({"LABEL", "EXPOSE", "STOPSIGNAL"})


class StepError(Exception):
    """An instruction that failed, or that is not known here."""


@dataclass(frozen=True, slots=True)
class Image:
    """What a stage came to.

    Attributes:
        root: Its files.
        env: Its environment.
        cwd: WORKDIR.
        user: USER.
        entry_point: ENTRYPOINT.
        command: CMD.
    """

    root: Path
    env: Mapping[str, str] = field(default_factory=lambda: {"PATH": _PATH})
    cwd: str = "/"
    user: str = ROOT_USER
    entry_point: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Engine:
    """What a container engine is told.

    Attributes:
        base: Root that stands in for each image that is not a stage.
        work_dir: Where stages get their roots.
        build_args: --build-arg.
        env: What is set in each RUN besides, and not kept: as engines do for proxies.
        binds: What is seen in each RUN besides, and not kept.
    """

    base: Path
    work_dir: Path
    build_args: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    binds: Mapping[str, Path] = field(default_factory=dict)

    def build(self, recipe: Recipe, context: Path) -> Image:
        """Do every stage, and return the last."""
        images: dict[str, Image] = {}
        for stage in recipe.stages:
            images[stage.name] = self._build_stage(stage, recipe, images, context)
        return images[recipe.image.name]

    def _build_stage(self, stage: Stage, recipe: Recipe, images: Mapping[str, Image], context: Path) -> Image:
        root = self.work_dir / stage.name
        shutil.rmtree(root, ignore_errors=True)
        parent = images.get(stage.base)
        print(f"FROM {stage.base} AS {stage.name}", flush=True)
        subprocess.run(["cp", "-a", parent.root if parent else self.base, root], check=True)  # noqa: S607
        image = replace(parent, root=root) if parent else Image(root)
        arguments: dict[str, str] = {}
        for instruction in stage.instructions:
            print(f"{instruction.name} {instruction.value}", flush=True)
            if instruction.name == "ARG":
                name, _, default = instruction.value.partition("=")
                arguments[name] = self.build_args.get(name, default or recipe.arguments.get(name, ""))
            elif instruction.name == "RUN":
                self._run(instruction, image, arguments)
            elif instruction.name == "COPY":
                copy = read_copy(instruction)
                source = images[copy.stage].root if copy.stage else self._context(context)
                _copy(copy, source, image)
            else:
                image = _configured(image, instruction, {**arguments, **image.env})
        return image

    def _run(self, instruction: Instruction, image: Image, arguments: Mapping[str, str]) -> None:
        env = {**self.env, **arguments, **image.env}
        jail = Jail(image.root, binds=self.binds)
        done = jail.run(["/bin/sh", "-c", instruction.value], env=env, cwd=image.cwd, user=image.user)
        if done.returncode != 0:
            raise StepError(f"RUN {instruction.value}: exit code {done.returncode}")

    def _context(self, context: Path) -> Path:
        """Copy what .dockerignore lets through, as an engine sends it."""
        sent = self.work_dir / "context"
        shutil.rmtree(sent, ignore_errors=True)
        for name in sent_files(context):
            (sent / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(context / name, sent / name)
        return sent


def sent_files(context: Path) -> list[str]:
    """Return the files of a context that .dockerignore lets through, relative to it."""
    ignore = context / ".dockerignore"
    lines = ignore.read_text(encoding="utf-8").splitlines() if ignore.is_file() else []
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return sorted(name for name in exclude_paths(str(context), patterns) if (context / name).is_file())


def _copy(copy: Copy, source: Path, image: Image) -> None:
    target = image.root / (image.cwd + "/" + copy.target if not copy.target.startswith("/") else copy.target).lstrip(
        "/"
    )
    for pattern in copy.sources:
        found = sorted(source.glob(pattern.lstrip("/")))
        if not found:
            raise StepError(f"COPY {pattern}: no such file in the context; see .dockerignore")
        for path in found:
            _copy_one(path, target, is_into=copy.target.endswith("/") or len(copy.sources) > 1)
    if copy.owner:
        subprocess.run(["chown", "-R", copy.owner, target], check=True)  # noqa: S607


def _copy_one(path: Path, target: Path, *, is_into: bool) -> None:
    """Copy a file to or into the target, and of a folder what is in it, as COPY does."""
    if path.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", f"{path}/.", target], check=True)  # noqa: S607
        return
    destination = target / path.name if is_into else target
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, destination)


def _configured(image: Image, instruction: Instruction, variables: Mapping[str, str]) -> Image:
    """Return the image after an instruction that changes no files, but for the folder of WORKDIR."""
    name, words = instruction.name, [expand(word, variables) for word in instruction.words()]
    if name in _NOTES:
        return image
    if name == "ENV":
        return replace(image, env={**image.env, **dict(word.partition("=")[::2] for word in words)})
    if name == "WORKDIR":
        (image.root / words[0].lstrip("/")).mkdir(parents=True, exist_ok=True)
        return replace(image, cwd=words[0])
    if name == "USER":
        return replace(image, user=words[0])
    if name == "ENTRYPOINT":
        return replace(image, entry_point=tuple(words))
    if name == "CMD":
        return replace(image, command=tuple(words))
    raise StepError(f"{name} {instruction.value}: not known here; teach it to docker_steps")
