"""Run the images' Dockerfiles for real without an engine: build a model in one, serve it in the other, ask it, stop it."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from docker_steps.host import make_engine
from docker_steps.jail import Jail
from docker_steps.recipe import read_recipe
from docker_steps.steps import Image, StepError

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKER = REPOSITORY / "configs" / "docker"
USER = "10001:10001"
MODEL = "minilm"
COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "make", "ld", "as")

VERBS = ("autoscale", "ready", "drain", "doctor")
"""What else the server's image is used for, as `configs/kubernetes` has it."""

_START_SECONDS = 180.0
_STOP_SECONDS = 60.0
_INFERENCE, _MANAGEMENT, _METRICS = 18080, 18081, 18082


def main(arguments: Sequence[str] | None = None) -> int:
    """Do all of it; 1 if something is not as it should be."""
    parser = argparse.ArgumentParser(prog="scripts/test-docker", description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="root that stands in for the base image")
    parser.add_argument("--work-dir", type=Path, required=True, help="where roots are made")
    parser.add_argument("--model", type=Path, required=True, help="folder of a sentence embedding model to build")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE", help="as docker build has it")
    args = parser.parse_args(arguments)
    build_args = dict(argument.partition("=")[::2] for argument in args.build_arg)
    try:
        images = {}
        for name in ("Dockerfile.build", "Dockerfile"):
            engine = make_engine(args.base.resolve(), (args.work_dir / name).resolve(), build_args)
            images[name] = engine.build(read_recipe(DOCKER / name), REPOSITORY)
        check(images["Dockerfile.build"], images["Dockerfile"], args.model.resolve(), args.work_dir.resolve())
    except StepError as error:
        print(f"test-docker: {error}", file=sys.stderr)
        return 1
    print("test-docker: both images do what they are for")
    return 0


def check(builder: Image, server: Image, model: Path, work_dir: Path) -> None:
    """Build an archive in one image and serve it in the other, each as its user, the server's files read only."""
    _check_files(server)
    store, run_dir = work_dir / "store", work_dir / "run"
    for folder in (store, run_dir):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        os.chown(folder, *map(int, USER.split(":")))
    build = Jail(
        builder.root,
        binds={"/build/model": model},
        writable={"/build/store": store},
        scratch=("/tmp",),  # noqa: S108
        is_read_only=True,
    )
    options = ["./model", "--task", "feature-extraction", "--name", MODEL, "--output", "store"]
    _expect(
        build.run([*builder.entry_point, *options], env=builder.env, cwd=builder.cwd, user=builder.user), "the build"
    )
    serve = Jail(
        server.root,
        writable={"/models/model-store": store, "/run/torchserve": run_dir},
        scratch=("/tmp", "/dev/shm"),  # noqa: S108
        is_read_only=True,
    )
    ports = [f"--inference-port={_INFERENCE}", f"--management-port={_MANAGEMENT}", f"--metrics-port={_METRICS}"]
    options = ["configure", "/models/model-store", "--disable-token-authorization", *ports]
    _expect(serve.run([*server.entry_point, *options], env=server.env, cwd=server.cwd, user=server.user), "configure")
    for verb in VERBS:
        done = serve.run([*server.entry_point, verb, "--help"], env=server.env, user=server.user, capture_output=True)
        _expect(done, f"{verb} --help")
    _serve(serve, server)


def _check_files(server: Image) -> None:
    jail = Jail(server.root)
    script = f"for name in {' '.join(COMPILERS)}; do command -v $name; done; true"
    found = jail.run(["sh", "-c", script], env=server.env, capture_output=True).stdout.split()
    if found:
        raise StepError(f"the server's image has compilers: {', '.join(found)}")
    script = "find / -xdev -path /proc -prune -o -path /dev -prune -o -type d -writable -print"
    found = jail.run(["sh", "-c", script], env=server.env, user=USER, capture_output=True).stdout.split()
    expected = {"/tmp", "/var/tmp", "/run/lock", "/models/model-store", "/run/torchserve"}  # noqa: S108
    if beyond := set(found) - expected:
        raise StepError(f"the server's user may write to {', '.join(sorted(beyond))}")


def _serve(jail: Jail, server: Image) -> None:
    """Start the image as it is, ask, and end it as an orchestrator does."""
    started = time.monotonic()
    process = jail.start([*server.entry_point, *server.command], env=server.env, cwd=server.cwd, user=server.user)
    try:
        while (answer := _ask("A sentence to embed.")) is None:
            if process.poll() is not None or time.monotonic() - started > _START_SECONDS:
                raise StepError(f"the server does not answer after {time.monotonic() - started:.0f} s")
            time.sleep(0.5)
        if len(answer) != 384 or abs(sum(value * value for value in answer) - 1) > 1e-3:
            raise StepError(f"the answer is no vector of 384 of length 1: {str(answer)[:200]}")
        print(f"answered after {time.monotonic() - started:.1f} s", flush=True)
        owner = Path(f"/proc/{process.pid}").stat().st_uid
        if owner != 10001:
            raise StepError(f"the server runs as user {owner}")
    finally:
        process.terminate()
        code = process.wait(_STOP_SECONDS)
    if code != 0:
        raise StepError(f"SIGTERM ended the server with code {code}")


def _ask(text: str) -> list[float] | None:
    """Return the answer; None while there is no server, or none that is ready."""
    url = f"http://127.0.0.1:{_INFERENCE}/predictions/{MODEL}"
    request = urllib.request.Request(url, data=text.encode(), headers={"Content-Type": "text/plain"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            found: list[float] = json.loads(response.read())
            return found
    except OSError:  # nobody listens, 503, or no answer in time
        return None


def _expect(done: subprocess.CompletedProcess[str], what: str) -> None:
    if done.returncode != 0:
        raise StepError(
            f"{what} ended with code {done.returncode}: {(done.stdout or '')[-300:]} {(done.stderr or '')[-300:]}"
        )


if __name__ == "__main__":
    sys.exit(main())
